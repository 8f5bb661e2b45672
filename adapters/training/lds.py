"""Scores against retraining: the linear datamodeling score, its seed ceiling, and leave-one-out correlations.

Outcomes are summed token margins of Q queries under retrained models. The linear datamodeling score (Park et al., TRAK,
2023) of scores s [Q, C] is, averaged over queries,

    LDS = Spearman over subsets S of ( sum of s_qc over c in S ,  mean over seeds of outcome(S, q) )

Its ceiling is what a perfect scorer could reach against outcomes of as many seeds: the square root of their
reliability, K r / (1 + (K - 1) r) for K seeds whose outcomes correlate by r (Spearman-Brown). Seeds that train the bank
are never the seed the scores come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from adapters.training.measures import Estimate

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Scores = Array | Sequence[Array]
"""One table, or one for each fold."""


@dataclass(frozen=True)
class Outcomes:
    """members [S, C] 0/1; half [K, S, Q] margins of K seeds; full [K, Q]; left_out [K, C, Q]; owner [Q], -1 unknown."""

    members: Array
    half: Array
    full: Array
    left_out: Array | None
    owner: Index

    def of(self, queries: Sequence[int]) -> Outcomes:
        """The same subsets, some of the queries."""
        chosen = np.asarray(queries)
        left_out = None if self.left_out is None else self.left_out[..., chosen]
        return Outcomes(self.members, self.half[..., chosen], self.full[..., chosen], left_out, self.owner[chosen])


def lds(scores: Scores, outcomes: Outcomes, folds: Sequence[Index] = (), draws: int = 300) -> Estimate:
    """LDS of scores [Q, C]; the 95% interval resamples subsets and queries (seed 0).

    With `folds`, `scores[i]` was fitted to the bank without the half subsets `folds[i]` and is judged on those.
    """
    return _resampled(_parts(scores, outcomes, folds), draws)


def lds_beyond_owner(scores: Scores, outcomes: Outcomes, folds: Sequence[Index] = (), draws: int = 300) -> Estimate:
    """LDS once the effect of each query's own contributor is taken out of predictions and outcomes alike.

    Both are residuals of a regression on "the owner is in the subset": a scorer that only knows the owner gets nothing.
    """
    own = outcomes.members.T[outcomes.owner]
    chosen = list(folds) or [np.arange(own.shape[1])]
    parts = zip(_parts(scores, outcomes, folds), chosen, strict=True)
    return _resampled([(_without(a, own[:, at]), _without(b, own[:, at])) for (a, b), at in parts], draws)


def ceiling(outcomes: Outcomes) -> float:
    """Square root of the reliability of the mean over seeds; 1 with one seed says only that it is unknown."""
    seeds = len(outcomes.half)
    pairs = [(a, b) for a in range(seeds) for b in range(a)]
    if not pairs:
        return 1.0
    agreement = float(np.mean([_spearman(outcomes.half[a].T, outcomes.half[b].T).mean() for a, b in pairs]))
    agreement = max(agreement, 0.0)
    return float(np.sqrt(seeds * agreement / (1 + (seeds - 1) * agreement)))


@dataclass(frozen=True)
class LeaveOneOut:
    """Correlation of scores with the effect of leaving each contributor out: means of Pearson and of Spearman."""

    pearson_over_queries: float
    spearman_over_queries: float
    pearson_within_query: float
    spearman_within_query: float


def leave_one_out(scores: Array, outcomes: Outcomes) -> LeaveOneOut:
    """Over queries: per contributor, then averaged. Within a query: per query, then averaged."""
    assert outcomes.left_out is not None
    effect = (outcomes.full[:, None] - outcomes.left_out).mean(0).T
    return LeaveOneOut(
        pearson_over_queries=float(_pearson(scores.T, effect.T).mean()),
        spearman_over_queries=float(_spearman(scores.T, effect.T).mean()),
        pearson_within_query=float(_pearson(scores, effect).mean()),
        spearman_within_query=float(_spearman(scores, effect).mean()),
    )


def fidelity(estimate: Estimate, top: float) -> float:
    """f in 0..1: the lower bound of LDS over its ceiling (ATTRIBUTION.md section 4)."""
    return float(np.clip(estimate.low / top, 0.0, 1.0)) if top > 0 else 0.0


def _parts(scores: Scores, outcomes: Outcomes, folds: Sequence[Index]) -> list[tuple[Array, Array]]:
    """Predictions and outcomes [Q, subsets], of all subsets or fold by fold."""
    seen = outcomes.half.mean(0).T
    if not len(folds):
        return [(np.asarray(scores) @ outcomes.members.T, seen)]
    return [(table @ outcomes.members[fold].T, seen[:, fold]) for table, fold in zip(scores, folds, strict=True)]


def _resampled(parts: Sequence[tuple[Array, Array]], draws: int) -> Estimate:
    """Mean over parts and queries of Spearman over subsets of [Q, S] tables, with a bootstrap over both."""
    queries = len(parts[0][0])
    draw = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        rows = draw.integers(queries, size=queries)
        columns = [draw.integers(seen.shape[1], size=seen.shape[1]) for _, seen in parts]
        again = [(a[rows][:, at], b[rows][:, at]) for (a, b), at in zip(parts, columns, strict=True)]
        means.append(np.mean([_spearman(a, b).mean() for a, b in again]))
    low, high = np.quantile(means, [0.025, 0.975])
    value = float(np.mean([_spearman(a, b).mean() for a, b in parts]))
    return Estimate(value, float(low), float(high), queries)


def _spearman(a: Array, b: Array) -> Array:
    """Per row, with ties at their mean rank; 0 where a row is constant."""
    return _pearson(rankdata(a, axis=1), rankdata(b, axis=1))


def _pearson(a: Array, b: Array) -> Array:
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    spread = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where(spread > 1e-12, (a * b).sum(1) / np.maximum(spread, 1e-12), 0.0)


def _without(table: Array, own: Array) -> Array:
    """Residual of each row of [Q, S] after regression on its row of `own` and a constant."""
    centred, x = table - table.mean(1, keepdims=True), own - own.mean(1, keepdims=True)
    slope = (centred * x).sum(1) / np.maximum((x * x).sum(1), 1e-12)
    return centred - slope[:, None] * x
