"""Correlation of served and exact scores over audited requests, from six sums a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PPM = 1_000_000
DRAWS = 500


@dataclass(frozen=True)
class Correlation:
    """Pearson's r with its 95% interval, and the number of requests (or tokens) that were resampled for it."""

    value: float
    low: float
    high: float
    count: int

    def record(self) -> dict[str, int]:
        """Integers of parts per million, as in fidelity.json."""
        ppm = {"ppm": self.value, "low_ppm": self.low, "high_ppm": self.high}
        return {**{name: round(value * PPM) for name, value in ppm.items()}, "count": self.count}

    @classmethod
    def of(cls, record: Mapping[str, int]) -> "Correlation":
        """The inverse of `record`."""
        return cls(record["ppm"] / PPM, record["low_ppm"] / PPM, record["high_ppm"] / PPM, record["count"])

    def is_below(self, reported: "Correlation") -> bool:
        """Drift: the whole interval lies below the reported one, so that chance does not explain it."""
        return self.high < reported.low


def pooled(moments: Sequence[Sequence[float]]) -> Correlation:
    """Over all (token, contributor) pairs of several requests, each given as n, sum a, sum b, sum aa, sum bb, sum ab.

    The interval is a bootstrap over requests (seed 0): tokens of one answer are not independent.
    """
    table = np.asarray(moments, dtype=np.float64)
    draw = np.random.default_rng(0)
    resampled = table[draw.integers(len(table), size=(DRAWS, len(table)))].sum(1)
    low, high = np.quantile(_pearson(resampled), (0.025, 0.975))
    return Correlation(float(_pearson(table.sum(0, keepdims=True))[0]), float(low), float(high), len(table))


def pooled_value(moments: Sequence[Sequence[float]]) -> float:
    """The same correlation without its interval."""
    return float(_pearson(np.asarray(moments, dtype=np.float64).sum(0, keepdims=True))[0])


def _pearson(moments: np.ndarray) -> Any:
    n, a, b, aa, bb, ab = moments.T
    spread = np.sqrt(np.clip((aa - a * a / n) * (bb - b * b / n), 0, None))
    return np.where(spread > 0, (ab - a * b / n) / np.where(spread > 0, spread, 1), 0.0)
