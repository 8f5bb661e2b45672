"""Measures of attribution: correlation with an interval, recall at 1, mean reciprocal rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PPM = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A measure with its 95% interval."""

    value: float
    low: float
    high: float
    count: int

    def record(self) -> dict[str, int]:
        """Canonical JSON: ppm and the number of queries or tokens."""
        ppm = {"ppm": self.value, "low_ppm": self.low, "high_ppm": self.high}
        return {**{name: round(value * PPM) for name, value in ppm.items()}, "count": self.count}


def ranks(scores: Tensor, truth: Sequence[int]) -> Tensor:
    """Rank of the true contributor of each query, 1 = best, fp64; ties count as the middle of the tied places.

    scores [Q, C], truth [Q].
    """
    true = scores.gather(1, torch.tensor(truth)[:, None])
    above = (scores > true).sum(1).double()
    tied = (scores == true).sum(1).double()
    return above + (tied + 1) / 2


def recall_at_1(scores: Tensor, truth: Sequence[int]) -> Estimate:
    """Share of queries whose true contributor ranks first, with the Wilson score interval.

    n contributors tied for the first place count 1/n each. scores [Q, C], truth [Q].
    """
    first = scores == scores.amax(1, keepdim=True)
    hit = first.gather(1, torch.tensor(truth)[:, None])[:, 0] / first.sum(1).double()
    return _wilson(float(hit.mean()), len(hit))


def mean_reciprocal_rank(scores: Tensor, truth: Sequence[int]) -> Estimate:
    """Mean of 1 / rank of the true contributor, with a bootstrap interval over queries (seed 0)."""
    return _bootstrap(1 / ranks(scores, truth))


def pearson(first: Tensor, second: Tensor, groups: Tensor | None = None, draws: int = 500) -> Estimate:
    """Correlation over all (token, contributor) pairs of two [N, C] score tables.

    The interval is a bootstrap over `groups` [N] (the example of each token), seed 0: tokens of one answer are not
    independent.
    """
    groups = torch.arange(len(first)) if groups is None else groups
    _, index = groups.unique(return_inverse=True)
    count = int(index.max()) + 1
    sums = torch.zeros(count, 6, dtype=torch.float64).index_add_(0, index, _moments(first.double(), second.double()))
    draw = torch.Generator().manual_seed(0)
    resampled = torch.stack([sums[torch.randint(count, (count,), generator=draw)].sum(0) for _ in range(draws)])
    low, high = _correlation(resampled).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(_correlation(sums.sum(0)[None])), low, high, len(first))


def _moments(a: Tensor, b: Tensor) -> Tensor:
    """Per row: n, sum a, sum b, sum aa, sum bb, sum ab; [N, 6]."""
    n = torch.full((len(a),), a.shape[1], dtype=torch.float64)
    return torch.stack([n, a.sum(1), b.sum(1), (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)], dim=1)


def _correlation(moments: Tensor) -> Tensor:
    n, a, b, aa, bb, ab = moments.unbind(-1)
    spread = ((aa - a * a / n) * (bb - b * b / n)).clamp_min(0).sqrt()
    return torch.where(spread > 0, (ab - a * b / n) / spread.clamp_min(1e-300), torch.zeros_like(spread))


def _wilson(share: float, count: int, z: float = 1.959964) -> Estimate:
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), count)


def _bootstrap(values: Tensor, draws: int = 500) -> Estimate:
    draw = torch.Generator().manual_seed(0)
    index = torch.randint(len(values), (draws, len(values)), generator=draw)
    low, high = values[index].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return Estimate(float(values.mean()), low, high, len(values))
