"""Objectives: how they are written and judged."""

import pytest

from loadtest.errors import Usage
from loadtest.slo import Measured, Objective, judge, parse_slo

MEASURED = Measured(
    {"ttft": [100.0, 200.0, 300.0], "itl": [], "e2e": [1000.0]},
    {"error_rate": 0.0, "tokens_per_second": 50.0, "requests_per_second": None},
)


def test_a_list_of_objectives_is_read_with_its_directions() -> None:
    """Latencies and the error rate are upper bounds, throughput is a lower one; spaces do not matter."""
    assert parse_slo("ttft_p95_ms=500, error_rate = 0.01 ,tokens_per_second=20,") == [
        Objective("ttft_p95_ms", 500, at_least=False),
        Objective("error_rate", 0.01, at_least=False),
        Objective("tokens_per_second", 20, at_least=True),
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("p95=3", "ttft_p95=3", "ttft_p0_ms=1", "ttft_p100_ms=1", "ttft_p95_ms", "ttft_p95_ms=fast"),
        *("itl_max_ms=-1", "error_rate=nan"),
    ],
)
def test_a_wrong_objective_is_refused_by_name(text: str) -> None:
    """A bound that nobody checks is worse than none."""
    with pytest.raises(Usage, match="--slo"):
        parse_slo(text)


@pytest.mark.parametrize(
    ("text", "measured", "met"),
    [
        ("ttft_p50_ms=200", 200.0, True),
        ("ttft_p50_ms=199", 200.0, False),
        ("ttft_mean_ms=200", 200.0, True),
        ("ttft_max_ms=299", 300.0, False),
        ("error_rate=0", 0.0, True),
        ("tokens_per_second=50", 50.0, True),
        ("tokens_per_second=51", 50.0, False),
    ],
)
def test_a_bound_is_met_up_to_itself(text: str, measured: float, met: bool) -> None:
    """At most means at most, at least means at least."""
    [verdict] = judge(parse_slo(text), MEASURED)
    assert (verdict.measured, verdict.met) == (pytest.approx(measured), met)


@pytest.mark.parametrize("text", ["itl_p99_ms=1000", "requests_per_second=0"])
def test_what_was_not_measured_is_not_met(text: str) -> None:
    """A run without streams does not pass an objective on ITL."""
    [verdict] = judge(parse_slo(text), MEASURED)
    assert (verdict.measured, verdict.met) == (None, False)
