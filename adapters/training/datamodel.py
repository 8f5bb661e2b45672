"""What a subset bank says about a token: a linear datamodel of its margin, one coefficient a contributor.

Over the bank's half subsets S the margin of token t is fitted by least squares with an intercept,

    margin_S(t) = a_t + sum over c in S of theta_c(t)                 (Ilyas et al., Datamodels, 2022)

Half subsets all have one size, so they only tell how contributors differ. The common part is set by the two ends that
need no half subset: sum over c of theta_c(t) = margin(whole Datanet) - margin(base model), seeds averaged. A
contributor without an example gets exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.training.subsets import FULL, HALF, NONE, Run, indicator


def coefficients(margins: Tensor, runs: Sequence[Run], present: Sequence[int], contributors: int) -> Tensor:
    """theta [N, C] fp64 in nats from the margins [R, N] of `runs`: half subsets, the whole Datanet, and nobody.

    `present` are the contributors with an example. Least squares is damped by a millionth of the mean diagonal, which
    decides only where half subsets are fewer than contributors.
    """
    halves = [i for i, run in enumerate(runs) if run.kind == HALF]
    design = indicator([runs[i].members for i in halves], contributors)[:, list(present)]
    seen = margins[halves].double()
    design, seen = design - design.mean(0), seen - seen.mean(0)
    gram = design.T @ design
    gram.diagonal().add_(1e-6 * gram.diagonal().mean())
    differences = torch.linalg.solve(gram, design.T @ seen).T
    total = gained(margins, runs)
    found = differences - differences.mean(1, keepdim=True) + (total / len(present))[:, None]
    theta = torch.zeros(margins.shape[1], contributors, dtype=torch.float64)
    theta[:, list(present)] = found
    return theta


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
