"""Exact scorers: per-token, per-contributor scores from true gradients of the margin.

Every scorer here has one form. With G_t = d margin_t / dB (margin = log p_y - log(1 - p_y), nats) and a direction
T_c in weight space for each contributor,

    score_c(t) = <G_t, T_c> = sum over modules of  g_t^T T_c h_t

where g_t is the gradient at the output of lora_B and h_t = A x_t; where A was trained too, the sum goes over every
lora_A as well, with the gradient at its output and its input x_t. What a method believes about contributors is in T:

    trace       T_c = B_c, the update trace                                          (this run's own steps)
    in_run      T_c = -sum over steps of lr * gradient_c                             (in-run first-order sums)
    gradient    T_c = sum over c's tokens of d log p / dB at the final weights       (grad-dot)
    fisher      T_c = the same, divided by (F + damping), F the diagonal empirical Fisher

Section 3 of ATTRIBUTION.md compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from adapters.training.gradients import Capture
from adapters.training.model import AdaptedModel, HiddenCache
from adapters.training.packs import Pack


class Scorer(Protocol):
    """Anything that scores tokens of a captured backward pass of their margins."""

    @property
    def name(self) -> str: ...

    def score(self, model: AdaptedModel, g: dict[str, Tensor], h: dict[str, Tensor]) -> Tensor:
        """Scores [N, C] in nats from g [N, out] and h [N, in] by name, gathered at the sampled positions.

        Names are those of `model.trained`; `g` lacks the ones that no gradient reaches: keys and values, when scoring
        is position-local.
        """
        ...


@dataclass(frozen=True)
class DirectionScorer:
    """score_c = <G_t, T_c> for fixed directions [C, P] over the flat parameter."""

    name: str
    directions: Tensor

    def score(self, model: AdaptedModel, g: dict[str, Tensor], h: dict[str, Tensor]) -> Tensor:
        split = model.split(self.directions)
        return torch.stack([_products(g[m], split[m], h[m]) for m in g]).sum(0)


def _products(g: Tensor, directions: Tensor, h: Tensor) -> Tensor:
    """g_n^T T_c h_n [N, C] of g [N, out], T [C, out, in], h [N, in].

    The wider side is summed first: what is left is N C r numbers and not N C D.
    """
    if g.shape[1] > h.shape[1]:
        return torch.einsum("nci,ni->nc", torch.einsum("no,coi->nci", g, directions), h)
    return torch.einsum("no,nco->nc", g, torch.einsum("coi,ni->nco", directions, h))


def margins(logits: Tensor, target: Tensor) -> Tensor:
    """log p_y - log(1 - p_y) [S] in nats, from raw logits [S, V]; differentiable, exact also where p_y is near 1."""
    others = logits.scatter(1, target[:, None], -torch.inf)
    return logits.gather(1, target[:, None])[:, 0] - others.logsumexp(1)


def fisher_scorers(
    model: AdaptedModel, cache: HiddenCache, packs: Sequence[Sequence[Pack]], contributors: int, damping: float = 0.1
) -> tuple[DirectionScorer, DirectionScorer]:
    """The `gradient` and `fisher` scorers from one pass over the training examples.

    F is the mean over supervised tokens of the squared gradient of log p, entry by entry: sum_t (g_t^2)^T (h_t^2) / N.
    `damping` is relative to the mean of F.
    """
    total = torch.zeros(contributors, model.parameter.numel())
    squares = torch.zeros_like(model.parameter)
    count = 0
    for batch in packs:
        hidden, layout = cache.batch(batch)
        with Capture(model) as capture:
            _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
            torch.nn.functional.cross_entropy(logits, layout.target, reduction="sum").backward()
        total -= capture.by_owner(torch.tensor([pack.owner for pack in batch]), contributors)
        square = [(capture.g[n].flatten(0, 1) ** 2).T @ capture.h[n].flatten(0, 1) ** 2 for n in model.trained]
        squares += torch.cat([part.flatten() for part in square])
        count += len(layout.target)
    fisher = squares / count
    corrected = total / (fisher + damping * fisher.mean())
    return DirectionScorer("gradient", total), DirectionScorer("fisher", corrected / len(cache.examples))
