"""Percentiles, ratios of pairs and their bootstrap intervals."""

import numpy as np
import pytest

from loadtest.stats import median_difference, percentile, ratio, summary


def test_percentiles_interpolate_between_neighbours() -> None:
    """The median of four values lies between the middle two; no values have no percentile."""
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([1, 2, 3, 4, 5], 95) == pytest.approx(4.8)
    assert percentile([], 50) is None


def test_a_summary_of_nothing_has_no_numbers() -> None:
    """Count 0, and None instead of a made-up zero."""
    assert summary([]) == {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None, "max": None}


def test_a_constant_ratio_has_an_interval_without_width() -> None:
    """When every pair has the ratio 0.96, however different the pairs, so has every resample."""
    slow = np.array([100.0, 250.0, 31.0, 400.0])
    found = ratio(0.96 * slow, slow)
    assert (found.value, found.low, found.high) == pytest.approx((0.96, 0.96, 0.96))
    assert found.pairs == 4


def test_a_ratio_upside_down_is_the_reciprocal() -> None:
    """The geometric mean favours neither side: swapping them inverts value and interval."""
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 2, 12), rng.uniform(1, 2, 12)
    there, back = ratio(a, b), ratio(b, a)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high, rel=1e-6)
    assert there.low < there.value < there.high


def test_pairing_removes_what_both_sides_share() -> None:
    """Rounds that differ tenfold in speed still give a narrow interval, because only ratios within a round count."""
    rng = np.random.default_rng(2)
    machine = rng.uniform(10, 100, 12)
    found = ratio(machine * 0.9 * rng.normal(1, 0.01, 12), machine)
    assert found.low > 0.88
    assert found.high < 0.92


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 experiments with 20 pairs each, the 95% interval holds the true ratio in at least 88%."""
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(200):
        found = ratio(np.exp(rng.normal(np.log(0.97), 0.05, 20)), np.ones(20), seed)
        held += found.low <= 0.97 <= found.high
    assert held >= 176


def test_the_same_numbers_give_the_same_interval() -> None:
    """The bootstrap is seeded."""
    assert median_difference([3, 1, 4, 1, 5], [2, 7, 1, 8, 2]) == median_difference([3, 1, 4, 1, 5], [2, 7, 1, 8, 2])


@pytest.mark.parametrize(("left", "right"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_what_is_no_pair_is_refused(left: list[float], right: list[float]) -> None:
    """Unequal or empty sides are an error of the benchmark, not a number."""
    with pytest.raises(ValueError, match="not pairs"):
        ratio(left, right)


def test_a_speed_of_zero_is_refused() -> None:
    """A round without tokens must not enter a mean of ratios."""
    with pytest.raises(ValueError, match="positive"):
        ratio([0.0], [1.0])
