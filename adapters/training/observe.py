"""What a head sees and what an exact scorer says, for every supervised token of a set of examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adapters.training.gradients import Capture
from adapters.training.model import AdaptedModel, HiddenCache
from adapters.training.packs import Pack, common_prefix, make_packs
from adapters.training.progress import Progress, silent
from adapters.training.scorers import Scorer, margins
from adapters.training.tokens import TokenExample
from kernels.ops import readout


@dataclass(frozen=True)
class Observations:
    """N tokens. example [N] index into the observed examples; u [N, D]; h [N, M, r] over all adapted modules, in
    order; margin [N]; scores[name] [N, C] of each exact scorer, in nats."""

    example: Tensor
    u: Tensor
    h: Tensor
    margin: Tensor
    scores: dict[str, Tensor]

    @classmethod
    def concatenate(cls, parts: Sequence[Observations]) -> Observations:
        """The tokens of several observations of the same examples, one after the other."""
        return cls(
            example=torch.cat([part.example for part in parts]),
            u=torch.cat([part.u for part in parts]),
            h=torch.cat([part.h for part in parts]),
            margin=torch.cat([part.margin for part in parts]),
            scores={name: torch.cat([part.scores[name] for part in parts]) for name in parts[0].scores},
        )

    def sorted(self) -> Observations:
        """The same tokens in the order of the examples; tokens of one example keep theirs."""
        order = self.example.argsort(stable=True)
        scores = {name: table[order] for name, table in self.scores.items()}
        return Observations(self.example[order], self.u[order], self.h[order], self.margin[order], scores)


class Readout:
    """The readout direction u of ARCHITECTURE.md, for one base model."""

    def __init__(self, causal_lm: Any) -> None:
        self._unembedding = causal_lm.lm_head.weight.detach()
        self._mean_row = self._unembedding.float().mean(0)
        self._g = causal_lm.model.norm.weight.detach()

    def __call__(self, logits: Tensor, target: Tensor, normed: Tensor) -> Tensor:
        """u [S, D] of the emitted tokens `target` [S], from raw logits [S, V] and final-norm output [S, D]."""
        return readout(logits, target, normed, self._unembedding, self._mean_row, self._g)[0]


def observe(
    model: AdaptedModel,
    direction: Readout,
    examples: Sequence[TokenExample],
    scorers: Sequence[Scorer],
    *,
    position_local: bool = True,
    stage: str = "scoring",
    progress: Progress = silent,
) -> Observations:
    """One forward pass and, where there are scorers, one backward pass of the summed margins.

    With `position_local`, keys and values are detached and each token's gradient flows through its own position only.
    Without, each token is scored by a backward pass of its own through all positions: slow, for comparison.
    """
    cache = HiddenCache(model, examples, common_prefix(examples))
    parts, done = [], 0
    for batch in _batches(examples, cache.prefix, position_local):
        if position_local:
            with model.position_local():
                parts.append(_observe_batch(model, direction, cache, batch, scorers))
        else:
            parts.append(_observe_fully(model, direction, cache, batch, scorers))
        done += sum(len(pack.members) for pack in batch)
        progress(stage, done, len(examples), "")
    return Observations.concatenate(parts)


def _batches(examples: Sequence[TokenExample], prefix: int, position_local: bool) -> list[list[Pack]]:
    """Position-local gradients cannot leave a token, so any examples may share a prefix; full ones need a row each."""
    if not position_local:
        return [[Pack(0, (i,))] for i in range(len(examples))]
    packs = make_packs([replace(example, owner=0) for example in examples], prefix, 256, random.Random(0))
    return [packs[i : i + 4] for i in range(0, len(packs), 4)]


def _observe_batch(
    model: AdaptedModel, direction: Readout, cache: HiddenCache, batch: list[Pack], scorers: Sequence[Scorer]
) -> Observations:
    hidden, layout = cache.batch(batch)
    with Capture(model) as capture, torch.set_grad_enabled(bool(scorers)):
        normed, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
        margin = margins(logits, layout.target)
        if scorers:
            margin.sum().backward()
    at = (layout.row, layout.column)
    h = {name: value[at] for name, value in capture.h.items()}
    g = {name: value[at] for name, value in capture.g.items()}
    with torch.no_grad():
        return Observations(
            example=layout.example,
            u=direction(logits.detach(), layout.target, normed.detach()),
            h=torch.stack([h[name] for name in model.modules], dim=1),
            margin=margin.detach(),
            scores={scorer.name: scorer.score(model, g, h) for scorer in scorers},
        )


def _observe_fully(
    model: AdaptedModel, direction: Readout, cache: HiddenCache, batch: list[Pack], scorers: Sequence[Scorer]
) -> Observations:
    """Scores through all positions: sum over positions s of g_s^T T_c h_s, one backward pass a token."""
    hidden, layout = cache.batch(batch)
    with Capture(model) as capture:
        normed = model.normed(model.upper(hidden, layout), layout)
        rows: dict[str, list[Tensor]] = {scorer.name: [] for scorer in scorers}
        for index, row in enumerate(layout.row.tolist()):
            # One row of logits at a time: through all of them, each backward pass would read the unembedding per row.
            one = slice(index, index + 1)
            margins(model.causal_lm.lm_head(normed[one]), layout.target[one]).sum().backward(retain_graph=True)
            g = {name: value[row] for name, value in capture.g.items()}
            h = {name: value[row] for name, value in capture.h.items()}
            for scorer in scorers:
                rows[scorer.name].append(scorer.score(model, g, h).sum(0))
    at = (layout.row, layout.column)
    with torch.no_grad():
        logits = model.causal_lm.lm_head(normed)
        return Observations(
            example=layout.example,
            u=direction(logits, layout.target, normed.detach()),
            h=torch.stack([capture.h[name][at] for name in model.modules], dim=1),
            margin=margins(logits, layout.target),
            scores={name: torch.stack(values) for name, values in rows.items()},
        )
