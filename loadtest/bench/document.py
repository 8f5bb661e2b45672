"""A benchmark's result as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loadtest.bench.driver import Sample
from loadtest.bench.rounds import Samples
from loadtest.bench.settings import Arm, Setting
from loadtest.stats import percentile, summary


def arms_json(runs: Sequence[Samples]) -> list[dict[str, Any]]:
    """One row for each arm, of its first run: tokens/s of every round, latencies over all requests of all rounds."""
    first: Samples = {}
    for samples in runs:
        first = samples | first
    return [_arm(arm, first[arm]) for arm in dict.fromkeys(arm for samples in runs for arm in samples)]


def _arm(arm: Arm, rows: Sequence[Sample]) -> dict[str, Any]:
    speeds = [row.tokens_per_second for row in rows]
    return {
        "name": arm.name,
        **asdict(arm),
        "tokens_per_second": {
            "median": percentile(speeds, 50),
            "p5": percentile(speeds, 5),
            "p95": percentile(speeds, 95),
            "rounds": [round(speed, 2) for speed in speeds],
        },
        "ttft_ms": summary([value for row in rows for value in row.ttft_ms]),
        "added_ms": summary([value for row in rows for value in row.added_ms]),
        "itl_ms": summary([value for row in rows for value in row.itl_ms]),
    }


def workload_json(setting: Setting) -> dict[str, Any]:
    """What every arm was asked to do."""
    names = ("rounds", "streams", "waves", "prompt_words", "max_tokens", "probes", "cold_repeats")
    return {name: getattr(setting, name) for name in names}


def claim(kind: str, name: str, loads: Mapping[str, float], quiet_load: float) -> dict[str, Any]:
    """Whether the numbers may be cited: not from a busy machine, and not from a smoke run."""
    reasons = []
    if loads["start"] > quiet_load:
        reasons.append(f"the load average at the start was {loads['start']:.2f}, above {quiet_load:g}")
    if name == "smoke":
        reasons.append("a smoke run proves that the parts work, nothing else")
    return {"kind": kind, "setting": name, "citable": not reasons, "not_citable_because": reasons}
