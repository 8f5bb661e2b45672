"""The targets, and what was measured of them: met, missed, or not shown either way."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.bench.driver import Sample
from loadtest.bench.rounds import Samples
from loadtest.bench.settings import BARE, COMPILED, GATEWAY, SIZES, Arm
from loadtest.stats import Interval, ratio

# Attribution on / off; gateway / bare vLLM; ms added before the first byte; 64 zipf / one adapter; cold - its bound.
BOUNDS: Mapping[str, Mapping[str, float]] = {
    "cpu": {"attribution": 0.96, "gateway": 0.97, "added_ms": 2.0, "many": 0.8, "cold_ms": 0.0},
    "gpu": {"attribution": 0.99, "gateway": 0.99, "added_ms": 1.0, "many": 0.9, "cold_ms": 0.0},
}
MANY = 64
LEAST_PAIRS = 10
TARGET_SIZE = list(SIZES)[1]


@dataclass(frozen=True)
class Comparison:
    """Tokens/s of one arm over another's, in pairs of one round."""

    name: str
    top: str
    bottom: str
    ratio: Interval
    bound: str | None = None

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Target:
    """One bound with what was measured. `verdict`: the whole interval meets or misses the bound, or it is within.

    Fewer than ten pairs judge nothing.
    """

    name: str
    bound: float
    at_least: bool
    measured: Interval
    verdict: str

    def json(self) -> dict[str, Any]:
        return asdict(self)


def comparisons(samples: Samples) -> list[Comparison]:
    """Every ratio that the arms of a run allow."""
    return list(_comparisons(samples))


def _comparisons(samples: Samples) -> Iterator[Comparison]:
    for arm in samples:
        if arm.attribution and (other := Arm(GATEWAY, arm.adapters, arm.popularity)) in samples:
            yield _compare("attribution on / off", "attribution", arm, other, samples)
    for server, bound in ((BARE, "gateway"), (COMPILED, None)):
        if Arm(GATEWAY, 0) in samples and Arm(server, 0) in samples:
            yield _compare(f"gateway / {server}", bound, Arm(GATEWAY, 0), Arm(server, 0), samples)
    for arm in samples:
        if arm.server == BARE and arm.adapters and (other := Arm(GATEWAY, arm.adapters, arm.popularity)) in samples:
            yield _compare("gateway / vLLM, adapters", None, other, arm, samples)
    one = Arm(GATEWAY, 1, attribution=True)
    for arm in samples:
        if arm.attribution and arm.adapters > 1 and one in samples:
            is_target = arm.adapters == MANY and arm.popularity == "zipf"
            yield _compare("many adapters / one", "many" if is_target else None, arm, one, samples)


def _compare(name: str, bound: str | None, top: Arm, bottom: Arm, samples: Samples) -> Comparison:
    measured = ratio(_speeds(samples[top]), _speeds(samples[bottom]))
    return Comparison(name, top.name, bottom.name, measured, bound)


def _speeds(samples: list[Sample]) -> list[float]:
    return [sample.tokens_per_second for sample in samples]


def targets(kind: str, found: list[Comparison], added_ms: Interval, cold: Mapping[str, Any]) -> list[Target]:
    """The targets of a kind of machine, judged."""
    bounds = BOUNDS[kind]
    judged = [
        _judge(f"{one.name}: {one.top}", bounds[one.bound], one.ratio, at_least=True) for one in found if one.bound
    ]
    judged.append(
        _judge("ms added before the first byte, one request at a time", bounds["added_ms"], added_ms, at_least=False)
    )
    late = Interval(**cold[TARGET_SIZE]["cold_minus_bound_ms"])
    judged.append(_judge("cold TTFT - (2 x warm TTFT + read), ms", bounds["cold_ms"], late, at_least=False))
    return judged


def _judge(name: str, bound: float, measured: Interval, at_least: bool) -> Target:
    good, bad = (measured.low, measured.high) if at_least else (-measured.high, -measured.low)
    limit = bound if at_least else -bound
    verdict = "met" if good >= limit else "missed" if bad < limit else "not shown"
    return Target(name, bound, at_least, measured, verdict if measured.pairs >= LEAST_PAIRS else "too few pairs")
