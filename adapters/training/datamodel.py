"""What a subset bank says about a token: a linear datamodel of its margin, one coefficient a contributor.

Over the bank's half subsets S the margin of token t, seeds averaged, is fitted by least squares with an intercept,

    margin_S(t) = a_t + sum over c in S of theta_c(t)                 (Ilyas et al., Datamodels, 2022)

Half subsets all have one size, so they only tell how contributors differ. The common part is set by the two ends that
need no half subset: sum over c of theta_c(t) = margin(whole Datanet) - margin(base model), seeds averaged. A
contributor without an example gets exactly 0.

Least squares starts from exact scorers s_i instead of 0: theta minimises the squared error + RIDGE |theta - m|^2 with
m = sum over i of a_i s_i, where the numbers a_i fit m to the margins of all tokens together. The bank then corrects
what the scorers get wrong, and they say what so few retrains cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.training.subsets import FULL, HALF, NONE, Run, indicator

RIDGE = 1.0
"""In half subsets: of 0.25 to 16, what predicts a half subset that was left out best, on both benchmark Datanets."""


def coefficients(
    margins: Tensor, runs: Sequence[Run], present: Sequence[int], contributors: int, toward: Sequence[Tensor]
) -> Tensor:
    """theta [N, C] fp64 in nats from the margins [R, N] of `runs`: half subsets, the whole Datanet, and nobody.

    `present` are the contributors with an example; `toward` are the scores [N, C] of one exact scorer or more.
    """
    by_subset: dict[tuple[int, ...], list[int]] = {}
    for place, run in enumerate(runs):
        if run.kind == HALF:
            by_subset.setdefault(run.members, []).append(place)
    design = indicator(list(by_subset), contributors)[:, list(present)]
    seen = torch.stack([margins[places].double().mean(0) for places in by_subset.values()])
    design, seen = design - design.mean(0), seen - seen.mean(0)
    start = _mixed([scores[:, list(present)].double() for scores in toward], design, seen)
    gram = design.T @ design
    gram.diagonal().add_(RIDGE)
    differences = start + torch.linalg.solve(gram, design.T @ (seen - design @ start.T)).T
    total = gained(margins, runs)
    found = differences - differences.mean(1, keepdim=True) + (total / len(present))[:, None]
    theta = torch.zeros(margins.shape[1], contributors, dtype=torch.float64)
    theta[:, list(present)] = found
    return theta


def _mixed(scores: Sequence[Tensor], design: Tensor, seen: Tensor) -> Tensor:
    """m: the sum of the tables [N, C], each times the one number with which they predict what was seen [S, N] best."""
    predicted = torch.stack([(design @ table.T).flatten() for table in scores])
    unit = predicted.norm(dim=1).clamp_min(1e-30)
    predicted = predicted / unit[:, None]
    shares = torch.linalg.pinv(predicted @ predicted.T, rtol=1e-9, hermitian=True) @ (predicted @ seen.flatten())
    return torch.einsum("i,inc->nc", shares / unit, torch.stack(list(scores)))


def gained(margins: Tensor, runs: Sequence[Run]) -> Tensor:
    """margin(whole Datanet) - margin(base model) of each token [N], fp64, seeds averaged."""
    mean = {
        kind: margins[[i for i, run in enumerate(runs) if run.kind == kind]].double().mean(0) for kind in (FULL, NONE)
    }
    return mean[FULL] - mean[NONE]


def explained(scores: Tensor, margins: Tensor, runs: Sequence[Run]) -> float:
    """Completeness: R^2 over tokens of the sum over c of scores [N, C] against what the whole Datanet gained."""
    total = gained(margins, runs)
    spread = (total - total.mean()).square().sum()
    return float(1 - (total - scores.double().sum(1)).square().sum() / spread.clamp_min(1e-30))
