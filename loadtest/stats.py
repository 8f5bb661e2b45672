"""The few statistics that are reported: percentiles, and intervals for what was measured in pairs.

Intervals are percentile bootstraps over pairs (Efron 1979): pairs are drawn with replacement, the statistic is computed
again, and the middle 95% of 10,000 such values is the interval. The generator is seeded: the same numbers, the same
interval.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A statistic with its bootstrap interval; `pairs` is how many pairs it rests on."""

    value: float
    low: float
    high: float
    pairs: int

    def json(self) -> dict[str, float]:
        return asdict(self)


def percentile(values: Sequence[float], q: float) -> float | None:
    """The q-th percentile (0 to 100), interpolated linearly between neighbours; None without values."""
    return float(np.percentile(values, q)) if len(values) else None


def summary(values: Sequence[float]) -> dict[str, float | int | None]:
    """Count, mean, p50, p95, p99 and maximum."""
    return {
        "count": len(values),
        "mean": float(np.mean(values)) if len(values) else None,
        **{f"p{q}": percentile(values, q) for q in (50, 95, 99)},
        "max": max(values, default=None),
    }


def ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Interval:
    """exp(mean(log(a_i / b_i))) over pairs: the geometric mean of the ratios, the same whichever side is on top.

    Raises ValueError for no pairs, unequal lengths or a value that is not positive.
    """
    a, b = _pairs(numerators, denominators)
    if (a <= 0).any() or (b <= 0).any():
        raise ValueError("a ratio needs positive values")
    logs = np.log(a / b)
    low, high = _bootstrap(logs, np.mean, seed)
    return Interval(float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high)), len(logs))


def median(values: Sequence[float], seed: int = 0) -> Interval:
    """The median of values that are no pairs, in their unit; `pairs` counts them. Raises ValueError for none."""
    return median_difference(values, [0.0] * len(values), seed)


def median_difference(left: Sequence[float], right: Sequence[float], seed: int = 0) -> Interval:
    """median(a_i - b_i) over pairs, in the unit of the values. Raises ValueError for no pairs or unequal lengths."""
    a, b = _pairs(left, right)
    low, high = _bootstrap(a - b, np.median, seed)
    return Interval(float(np.median(a - b)), low, high, len(a))


def _pairs(left: Sequence[float], right: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(left) != len(right) or not len(left):
        raise ValueError(f"{len(left)} and {len(right)} values are not pairs")
    return np.asarray(left, dtype=float), np.asarray(right, dtype=float)


def _bootstrap(values: np.ndarray, statistic, seed: int) -> tuple[float, float]:
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(statistic(values[drawn], axis=1), [tail, 100 - tail])
    return float(low), float(high)
