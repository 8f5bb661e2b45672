"""What a subset bank says about a token: a linear datamodel of its margin, one coefficient a contributor.

Over the bank's half subsets S the margin of token t is fitted by least squares with an intercept,

    margin_S(t) = a_t + sum over c in S of theta_c(t)                 (Ilyas et al., Datamodels, 2022)

Half subsets all have one size, so they only tell how contributors differ. The common part is set by the two ends that
need no half subset: sum over c of theta_c(t) = margin(whole Datanet) - margin(base model), seeds averaged. A
contributor without an example gets exactly 0.

Least squares may start from an exact scorer s instead of 0: theta minimises the squared error + RIDGE |theta - a s|^2,
where the number a fits a s to the margins of all tokens together. The bank then corrects what the scorer gets wrong,
and the scorer says what so few retrains cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.training.subsets import FULL, HALF, NONE, Run, indicator

RIDGE = 1.0
"""In half subsets: of the 0.1 to 100 tried on the invented facts, 0.1 to 3 differ by 0.02 of LDS."""


def coefficients(
    margins: Tensor, runs: Sequence[Run], present: Sequence[int], contributors: int, toward: Tensor | None = None
) -> Tensor:
    """theta [N, C] fp64 in nats from the margins [R, N] of `runs`: half subsets, the whole Datanet, and nobody.

    `present` are the contributors with an example; `toward` [N, C] are the scores s of an exact scorer. Without it
    least squares is damped by a millionth of the mean diagonal, which decides only where half subsets are fewer than
    contributors.
    """
    halves = [i for i, run in enumerate(runs) if run.kind == HALF]
    design = indicator([runs[i].members for i in halves], contributors)[:, list(present)]
    seen = margins[halves].double()
    design, seen = design - design.mean(0), seen - seen.mean(0)
    start = torch.zeros(seen.shape[1], len(present), dtype=torch.float64)
    ridge = 1e-6 * float((design * design).sum(0).mean())
    if toward is not None:
        start, ridge = _scaled(toward[:, list(present)].double(), design, seen), RIDGE
    gram = design.T @ design
    gram.diagonal().add_(ridge)
    differences = start + torch.linalg.solve(gram, design.T @ (seen - design @ start.T)).T
    total = gained(margins, runs)
    found = differences - differences.mean(1, keepdim=True) + (total / len(present))[:, None]
    theta = torch.zeros(margins.shape[1], contributors, dtype=torch.float64)
    theta[:, list(present)] = found
    return theta


def _scaled(scores: Tensor, design: Tensor, seen: Tensor) -> Tensor:
    """a s: the scores [N, C] times the one number with which they predict what was seen [S, N] best."""
    predicted = design @ scores.T
    return scores * ((predicted * seen).sum() / (predicted * predicted).sum().clamp_min(1e-30))


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
