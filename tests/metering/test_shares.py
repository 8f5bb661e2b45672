"""Shares: exact, complete, and by the published formula."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.shares import PPM, largest_remainder, share_weights, shares_ppm

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "shares.json").read_text())
NAMES = st.text("abcdef", min_size=1, max_size=3)
DECLARED = st.dictionaries(NAMES, st.integers(0, 2**53), min_size=1, max_size=8).filter(lambda d: sum(d.values()) > 0)
TOTALS = st.integers(0, 2**62)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["fact"])
def test_vectors(vector):
    """Each vector's shares are computed to the unit."""
    weights = share_weights(vector["scores"], vector["declared"], vector["fidelity_ppm"])
    assert largest_remainder(vector["total"], weights) == vector["shares"]


@given(TOTALS, DECLARED)
def test_largest_remainder_is_complete_and_fair(total, weights):
    """Parts add up to the total, and none is a whole unit away from its exact share."""
    parts = largest_remainder(total, weights)
    assert sum(parts.values()) == total
    for name, part in parts.items():
        assert abs(part - Fraction(total * weights[name], sum(weights.values()))) < 1


@given(TOTALS, DECLARED)
def test_order_does_not_matter(total, weights):
    """The same weights in another order give the same parts: ties go by name."""
    assert largest_remainder(total, dict(reversed(weights.items()))) == largest_remainder(total, weights)


@given(DECLARED, st.integers(0, PPM), st.data())
def test_weights_are_the_formula_exactly(declared, fidelity_ppm, data):
    """w_c = f max(S_c,0)/sum max(S,0) + (1-f) declared_c, in exact fractions."""
    scores = data.draw(st.dictionaries(st.sampled_from(sorted(declared)), st.integers(-(2**62), 2**62)))
    weights = share_weights(scores, declared, fidelity_ppm)
    positive = sum(max(score, 0) for score in scores.values())
    f = Fraction(fidelity_ppm, PPM) if positive else Fraction(0)
    for name, weight in weights.items():
        measured = Fraction(max(scores.get(name, 0), 0), positive or 1)
        exact = f * measured + (1 - f) * Fraction(declared[name], sum(declared.values()))
        assert Fraction(weight, sum(weights.values())) == exact
    assert sum(shares_ppm(scores, declared, fidelity_ppm).values()) == PPM


def test_undeclared_and_impossible_inputs():
    """Scores of strangers, negative totals and empty weights are our own bugs: ValueError."""
    with pytest.raises(ValueError, match="undeclared"):
        share_weights({"eve": 1}, {"ada": 1}, 0)
    for total, weights in ((-1, {"a": 1}), (1, {"a": 0}), (1, {}), (1, {"a": -1, "b": 2})):
        with pytest.raises(ValueError, match="largest_remainder"):
            largest_remainder(total, weights)
    assert shares_ppm({}, {}, 0) == {}
