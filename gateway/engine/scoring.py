"""Scores the tokens sampled in one engine step against the contributors of their adapters.

    score_c = (P^T u)^T K[c,l] h_l summed over taps l      (docs/ARCHITECTURE.md, "The score")

Two halves bracket vLLM's sampler: `capture` keeps what the sampler is about to change (the raw logits), `score` needs
the token it chose.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from gateway.engine.heads import Bank, HeadStore, Seated
from gateway.engine.taps import TapBuffer
from kernels.ops import readout

MICRO_NATS = 1_000_000


@dataclass(frozen=True)
class StepScores:
    """Signed integer micro-nats of one step: `rows` maps a vLLM request id to (first row, scores a token)."""

    scores: np.ndarray
    rows: dict[str, tuple[int, int]]

    def of(self, request_id: str, tokens: int) -> np.ndarray | None:
        """int64 [tokens, width] of a request's first `tokens` emitted tokens; None if it was not scored."""
        if request_id not in self.rows or not tokens:
            return None
        start, width = self.rows[request_id]
        return self.scores[start : start + tokens, :width]


@dataclass(frozen=True)
class SampledRequest:
    """One request of the step: its first logits row, how many rows it has (1 + draft tokens), and its adapter."""

    request_id: str
    index: int
    first_row: int
    rows: int
    adapter_id: int


@dataclass(frozen=True)
class _Share:
    """The captured rows [first, end) whose heads lie in one bank: the head and the taps of each."""

    first: int
    end: int
    bank: Bank
    slot: torch.Tensor
    h: torch.Tensor


@dataclass(frozen=True)
class _Captured:
    """The rows of a step that will be scored, bank by bank; `rows` as in StepScores.

    `sampled_at` [2, rows] tells which entry of the sampler's output is each row's token.
    """

    rows: dict[str, tuple[int, int]]
    shares: list[_Share]
    sampled_at: torch.Tensor
    logits: torch.Tensor
    normed: torch.Tensor


@dataclass(frozen=True)
class PendingScores:
    """Scores still on their way from the device; `resolve` waits for the copy and nothing else."""

    host: torch.Tensor
    rows: dict[str, tuple[int, int]]
    copied: torch.cuda.Event

    def resolve(self) -> StepScores:
        self.copied.synchronize()
        return StepScores(self.host.numpy(), self.rows)


class StepScorer:
    """Attribution of one worker; keeps nothing from one step to the next. Never waits for the device."""

    def __init__(self, heads: HeadStore, taps: TapBuffer):
        self.heads = heads
        self.taps = taps
        self._captured: _Captured | None = None
        self._result: StepScores | PendingScores | None = None

    def capture(
        self,
        requests: list[SampledRequest],
        logits: torch.Tensor,
        normed: torch.Tensor,
        positions: torch.Tensor,
        stays: bool = False,
    ) -> None:
        """Keeps raw logits, final-norm outputs and h of the rows whose adapter has a head.

        logits [rows, vocab] and normed [rows, D] are the step's sampled rows, positions [rows] their token positions in
        the batch (on the host or on the device). The logits are copied, because penalties, temperature and grammar
        masks change them in place, unless they are known to stay as they are and all rows are wanted.
        """
        self.drop()
        found = [(request, seated) for request in requests if (seated := self.heads.get(request.adapter_id))]
        if not found:
            return
        found.sort(key=lambda pair: id(pair[1].bank))  # stable
        at: list[tuple[int, int, int, int]] = []
        rows: dict[str, tuple[int, int]] = {}
        for request, seated in found:
            rows[request.request_id] = (len(at), seated.width)
            at += [(request.first_row + i, seated.row, request.index, i) for i in range(request.rows)]
        index = torch.tensor(at, pin_memory=logits.is_cuda).T
        taken, slot, *sampled_at = index.to(logits.device, non_blocking=True).contiguous()
        at_token = positions[taken] if positions.device == taken.device else _moved(positions[index[0]], logits.device)
        shares = [
            _Share(first, end, bank, slot[first:end], self.taps.gather(bank.taps, at_token[first:end], bank.rank))
            for bank, first, end in _by_bank(found)
        ]
        if not (stays and [row for row, *_ in at] == list(range(len(logits)))):
            logits, normed = logits[taken], normed[taken]
        self._captured = _Captured(rows, shares, torch.stack(sampled_at), logits, normed)

    def score(self, sampled: torch.Tensor) -> None:
        """Scores the captured rows; sampled [requests, 1 + draft tokens] are the emitted ids, -1 where rejected."""
        step, self._captured = self._captured, None
        if step is None:
            return
        emitted = sampled[step.sampled_at[0], step.sampled_at[1]].long().clamp_min(0)
        heads = self.heads
        u, _ = readout(step.logits, emitted, step.normed, heads.unembedding, heads.mean_row, heads.g)
        scores = _fixed_point([one.bank.scores(u[one.first : one.end], one.h, one.slot) for one in step.shares])
        if not scores.is_cuda:
            self._result = StepScores(scores.numpy(), step.rows)
            return
        host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
        host.copy_(scores, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._result = PendingScores(host, step.rows, copied)

    def take(self) -> StepScores | PendingScores | None:
        """The scores of this step, once."""
        result, self._result = self._result, None
        return result

    def drop(self) -> None:
        """Forgets the step: its tokens are reported as unscored."""
        self._captured, self._result = None, None


def _by_bank(found: list[tuple[SampledRequest, Seated]]) -> Iterator[tuple[Bank, int, int]]:
    """Each bank with its rows [first, end); `found` is sorted by bank."""
    first = 0
    for _, own in groupby(found, key=lambda pair: id(pair[1].bank)):
        members = list(own)
        end = first + sum(request.rows for request, _ in members)
        yield members[0][1].bank, first, end
        first = end


def _moved(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    return host.pin_memory().to(device, non_blocking=True)


def _fixed_point(blocks: list[torch.Tensor]) -> torch.Tensor:
    """Rounds scores in nats to int64 micro-nats, blocks of different widths stacked with zero padding."""
    width = max(block.shape[1] for block in blocks)
    padded = [torch.nn.functional.pad(block, (0, width - block.shape[1])) for block in blocks]
    return torch.round(torch.cat(padded).double() * MICRO_NATS).to(torch.int64)
