"""Nanos to token units, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.chain.errors import RateInvalid
from metering.chain.rate import Rate, par_rate


@pytest.mark.parametrize(
    ("decimals", "nanos", "payable", "units"),
    [
        (6, 1_234_567_890, 1_234_567_000, 1_234_567),
        (6, 999, 0, 0),
        (9, 7, 7, 7),
        (18, 1, 1, 10**9),
        (0, 1_999_999_999, 1_000_000_000, 1),
    ],
)
def test_par_rate_is_one_token_for_one_unit_of_the_currency(decimals, nanos, payable, units):
    """What is not a whole unit of the token stays behind, in nanos."""
    rate = par_rate(decimals)
    assert (rate.payable_nanos(nanos), rate.units(payable)) == (payable, units)


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.lists(st.integers(0, 10**15), max_size=5))
def test_cumulative_conversion_never_drifts(nanos_per_step, units_per_step, parts):
    """Units of a sum of payable parts are the sum of their units: no rounding accumulates."""
    rate = Rate(nanos_per_step, units_per_step)
    payable = [rate.payable_nanos(part) for part in parts]
    assert rate.units(sum(payable)) == sum(map(rate.units, payable))


@pytest.mark.parametrize("bad", [(0, 1), (1, 0), (-1, 1), (1.0, 1), (True, 1), (1, 10**19)])
def test_rates_that_are_not_positive_integers_are_refused(bad):
    """Floats, zeros and negatives have a name."""
    with pytest.raises(RateInvalid):
        Rate(*bad)


def test_amount_between_steps_is_refused():
    """Only whole steps convert."""
    with pytest.raises(RateInvalid, match="not a multiple"):
        par_rate(6).units(1001)
    with pytest.raises(RateInvalid, match="28 decimals"):
        par_rate(28)
