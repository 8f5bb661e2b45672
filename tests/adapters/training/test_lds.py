"""LDS, its ceiling and leave-one-out on outcomes whose answer is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from adapters.training.lds import Outcomes, ceiling, fidelity, lds, lds_beyond_owner, leave_one_out
from adapters.training.subsets import half_subsets, indicator

QUERIES, CONTRIBUTORS = 40, 8
RNG = np.random.default_rng(3)
EFFECT = RNG.normal(size=(QUERIES, CONTRIBUTORS))
OWNER = RNG.integers(CONTRIBUTORS, size=QUERIES)
MEMBERS = indicator(half_subsets(CONTRIBUTORS, 40, 0), CONTRIBUTORS).numpy()


def outcomes(noise: float, seeds: int = 2, effect: np.ndarray = EFFECT) -> Outcomes:
    """Linear outcomes with Gaussian noise of each seed."""
    linear = (effect @ MEMBERS.T).T
    half = linear + noise * RNG.normal(size=(seeds, *linear.shape))
    full = np.repeat(effect.sum(1)[None], seeds, 0)
    left_out = full[:, None] - np.repeat(effect.T[None], seeds, 0)
    return Outcomes(MEMBERS, half, full, left_out, OWNER)


def test_the_true_effects_reach_the_ceiling_and_others_do_not() -> None:
    """Without noise LDS is 1; with noise it is the ceiling; unrelated scores get nothing."""
    assert lds(EFFECT, outcomes(0.0)).value == pytest.approx(1.0)
    noisy = outcomes(2.0, seeds=3)
    truth = lds(EFFECT, noisy)
    assert truth.low < truth.value < truth.high
    assert truth.value == pytest.approx(ceiling(noisy), abs=0.05)
    assert abs(lds(RNG.normal(size=EFFECT.shape), noisy).value) < 0.1
    assert 0.5 < fidelity(truth, ceiling(noisy)) < 1.0


def test_it_is_the_mean_of_scipys_spearman_over_queries() -> None:
    """A query at a time, ties included."""
    noisy, scores = outcomes(1.0), np.round(RNG.normal(size=EFFECT.shape))
    each = [spearmanr(scores[q] @ MEMBERS.T, noisy.half.mean(0)[:, q]).statistic for q in range(QUERIES)]
    assert lds(scores, noisy).value == pytest.approx(np.mean(each), abs=1e-9)


def test_knowing_the_owner_is_worth_nothing_beyond_the_owner() -> None:
    """An oracle of the owner has an LDS where owners matter, and none once their effect is out."""
    owned = EFFECT.copy()
    owned[np.arange(QUERIES), OWNER] += 4
    seen, oracle = outcomes(0.5, effect=owned), np.eye(CONTRIBUTORS)[OWNER]
    assert lds(oracle, seen).value > 0.5
    assert abs(lds_beyond_owner(oracle, seen).value) < 1e-9
    assert lds_beyond_owner(owned, seen).value > 0.8


def test_leave_one_out_correlations() -> None:
    """Exact effects correlate fully both ways; a factor per contributor spoils only what is compared within a query."""
    seen = outcomes(0.0)
    exact, scaled = leave_one_out(EFFECT, seen), leave_one_out(EFFECT * np.geomspace(1, 1000, CONTRIBUTORS), seen)
    assert exact.pearson_within_query == pytest.approx(1) == exact.spearman_over_queries
    assert scaled.pearson_over_queries == pytest.approx(1)
    assert scaled.pearson_within_query < 0.8
