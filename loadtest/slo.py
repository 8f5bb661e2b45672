"""Service level objectives: `ttft_p95_ms=500, itl_p99_ms=80, error_rate=0.01, tokens_per_second=200`.

<latency>_<statistic>_ms    latency: ttft, itl, e2e; statistic: p1 to p99, mean, max; at most
error_rate                  failed requests over all requests, 0 to 1; at most
tokens_per_second           at least
requests_per_second         at least
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from loadtest.errors import Usage
from loadtest.stats import percentile

_LATENCY = re.compile(r"(?P<latency>ttft|itl|e2e)_(?P<statistic>p[1-9][0-9]?|mean|max)_ms")
AT_MOST, AT_LEAST = ("error_rate",), ("tokens_per_second", "requests_per_second")


@dataclass(frozen=True)
class Objective:
    """One bound; `at_least` for rates, else it is an upper bound."""

    name: str
    bound: float
    at_least: bool


@dataclass(frozen=True)
class Verdict:
    """What was measured against one objective. A number that could not be measured does not meet its bound."""

    name: str
    bound: float
    measured: float | None
    met: bool

    def json(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """What objectives speak of: latencies in ms by name, and the rates."""

    latencies_ms: Mapping[str, Sequence[float]]
    rates: Mapping[str, float | None]


def parse_slo(text: str) -> list[Objective]:
    """The objectives of a comma-separated list. Raises Usage naming the part that is wrong."""
    return [_objective(part.strip()) for part in text.split(",") if part.strip()]


def judge(objectives: Sequence[Objective], measured: Measured) -> list[Verdict]:
    """One verdict for each objective."""
    return [_verdict(objective, _value(objective.name, measured)) for objective in objectives]


def _objective(part: str) -> Objective:
    name, equals, raw = (piece.strip() for piece in part.partition("="))
    if not (name in AT_MOST or name in AT_LEAST or _LATENCY.fullmatch(name)):
        raise Usage(
            f"--slo: unknown objective {name!r}; known are ttft|itl|e2e_pNN_ms, {', '.join(AT_MOST + AT_LEAST)}"
        )
    try:
        bound = float(raw)
    except ValueError:
        bound = -1.0
    if not equals or not 0 <= bound < float("inf"):
        raise Usage(f"--slo: {part!r} needs a bound of zero or more, as in {name}=0.5")
    return Objective(name, bound, name in AT_LEAST)


def _value(name: str, measured: Measured) -> float | None:
    match = _LATENCY.fullmatch(name)
    if match is None:
        return measured.rates.get(name)
    values, statistic = measured.latencies_ms.get(match["latency"], ()), match["statistic"]
    if not len(values):
        return None
    if statistic == "mean":
        return float(np.mean(values))
    return max(values) if statistic == "max" else percentile(values, int(statistic[1:]))


def _verdict(objective: Objective, value: float | None) -> Verdict:
    met = value is not None and (value >= objective.bound if objective.at_least else value <= objective.bound)
    return Verdict(objective.name, objective.bound, value, met)
