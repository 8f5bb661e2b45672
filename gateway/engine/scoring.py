"""Scores the tokens sampled in one engine step against the contributors of their adapters.

    score_c = u^T K[c,l] h_l summed over taps l            (docs/ARCHITECTURE.md, "The score")

Two halves bracket vLLM's sampler: `capture` keeps what the sampler is about to change (the raw logits), `score` needs
the token it chose.
"""

from dataclasses import dataclass

import numpy as np
import torch

from gateway.engine.heads import Bank, HeadStore, Seated
from gateway.engine.taps import TapBuffer
from kernels.ops import attribution_scores, readout_direction

MICRO_NATS = 1_000_000


@dataclass(frozen=True)
class StepScores:
    """Signed integer micro-nats of one step: `rows` maps a vLLM request id to (first row, contributors)."""

    scores: np.ndarray
    rows: dict[str, tuple[int, int]]

    def of(self, request_id: str, tokens: int) -> np.ndarray | None:
        """int64 [tokens, contributors] of a request's first `tokens` emitted tokens; None if it was not scored."""
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
class _Group:
    """The captured rows that one call can score: heads of one basis and one bank.

    `sampled_at` [2, rows] tells which entry of the sampler's output is each row's token.
    """

    members: list[tuple[SampledRequest, int]]
    basis: str
    bank: Bank
    slot: torch.Tensor
    sampled_at: torch.Tensor
    logits: torch.Tensor
    normed: torch.Tensor
    h: torch.Tensor


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
        self._groups: list[_Group] = []
        self._result: StepScores | PendingScores | None = None

    def capture(
        self, requests: list[SampledRequest], logits: torch.Tensor, normed: torch.Tensor, positions: torch.Tensor
    ) -> None:
        """Copies raw logits, final-norm outputs and h of the rows whose adapter has a head.

        logits [rows, vocab] and normed [rows, D] are the step's sampled rows, positions [rows] their token positions in
        the batch (on the host or on the device). The logits must be copied: penalties, temperature and grammar masks
        change them in place.
        """
        self._groups, self._result = [], None
        members: dict[tuple[str, int], list[tuple[SampledRequest, Seated]]] = {}
        for request in requests:
            seated = self.heads.get(request.adapter_id)
            if seated is not None:
                members.setdefault((seated.basis, id(seated.bank)), []).append((request, seated))
        for own in members.values():
            bank = own[0][1].bank
            index = torch.tensor(
                [(r.first_row + i, s.row, r.index, i) for r, s in own for i in range(r.rows)],
                pin_memory=logits.is_cuda,
            ).T
            rows, slot, *sampled_at = index.to(logits.device, non_blocking=True).contiguous()
            at = positions[rows] if positions.device == rows.device else _moved(positions[index[0]], logits.device)
            h = self.taps.gather(bank.taps, at, bank.rank)
            kept = logits[rows].float(), normed[rows].float(), h
            widths = [(r, s.contributors) for r, s in own]
            self._groups.append(_Group(widths, own[0][1].basis, bank, slot, torch.stack(sampled_at), *kept))

    def score(self, sampled: torch.Tensor) -> None:
        """Scores the captured rows; sampled [requests, 1 + draft tokens] are the emitted ids, -1 where rejected."""
        groups, self._groups = self._groups, []
        if not groups:
            return
        blocks: list[torch.Tensor] = []
        rows: dict[str, tuple[int, int]] = {}
        start = 0
        for group in groups:
            emitted = sampled[group.sampled_at[0], group.sampled_at[1]].long().clamp_min(0)
            u = readout_direction(group.logits, emitted, group.normed, *self.heads.projection(group.basis))
            blocks.append(attribution_scores(u, group.h, group.bank.K, group.slot))
            for request, width in group.members:
                rows[request.request_id] = (start, width)
                start += request.rows
        scores = _fixed_point(blocks)
        if not scores.is_cuda:
            self._result = StepScores(scores.numpy(), rows)
            return
        host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
        host.copy_(scores, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._result = PendingScores(host, rows, copied)

    def take(self) -> StepScores | PendingScores | None:
        """The scores of this step, once."""
        result, self._result = self._result, None
        return result

    def drop(self) -> None:
        """Forgets the step: its tokens are reported as unscored."""
        self._groups, self._result = [], None


def _moved(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    return host.pin_memory().to(device, non_blocking=True)


def _fixed_point(blocks: list[torch.Tensor]) -> torch.Tensor:
    """Rounds scores in nats to int64 micro-nats, blocks of different widths stacked with zero padding."""
    width = max(block.shape[1] for block in blocks)
    padded = [torch.nn.functional.pad(block, (0, width - block.shape[1])) for block in blocks]
    return torch.round(torch.cat(padded).double() * MICRO_NATS).to(torch.int64)
