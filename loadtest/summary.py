"""The numbers of one run: what objectives judge, what the report prints and what the JSON holds."""

from collections import Counter
from typing import Any

from loadtest.load import Load
from loadtest.observed import Observed
from loadtest.slo import Measured
from loadtest.stats import summary

TIMED = ("stream", "disconnect")  # a slow reader's ITL is its own doing, a whole answer has none


def measured(load: Load) -> Measured:
    """Latencies in ms, and rates. TTFT counts slow readers, too: they are slow only after the first piece."""
    seen = load.seen
    streams = [one for one in seen if one.behaviour in TIMED]
    first = [one.ttft_ms for one in seen if one.behaviour != "chat" and one.ttft_ms is not None]
    whole = [one.e2e_ms for one in seen if one.behaviour in ("chat", "stream") and one.e2e_ms is not None]
    rates = {
        "error_rate": sum(one.failed for one in seen) / len(seen) if seen else None,
        "tokens_per_second": sum(tokens(one) for one in seen) / load.seconds,
        "requests_per_second": len(seen) / load.seconds,
    }
    return Measured({"ttft": first, "itl": [gap for one in streams for gap in one.itl_ms], "e2e": whole}, rates)


def tokens(one: Observed) -> int:
    """Completion tokens that a client knows of: its usage, else the token ids or the pieces that arrived."""
    if one.usage:
        return one.usage["completion_tokens"]
    return one.tokens_seen or len(one.token_times)


def by_behaviour(load: Load) -> dict[str, dict[str, int]]:
    """Requests, failures, leavers and tokens by behaviour."""
    rows: dict[str, Counter[str]] = {name: Counter() for name, weight in load.workload.mix.items() if weight}
    for one in load.seen:
        rows[one.behaviour].update(requests=1, failed=one.failed, left=one.left, tokens=tokens(one))
    return {name: dict(row) for name, row in rows.items()}


def errors(load: Load) -> list[tuple[str, int]]:
    """Distinct errors, the most frequent first."""
    return Counter(one.error for one in load.seen if one.error).most_common(10)


def document(load: Load) -> dict[str, Any]:
    """The run as JSON values."""
    numbers = measured(load)
    return {
        "seconds": load.seconds,
        "requests": len(load.seen),
        "behaviours": by_behaviour(load),
        "models": dict(Counter(one.model for one in load.seen).most_common()),
        "latencies_ms": {name: summary(values) for name, values in numbers.latencies_ms.items()},
        "rates": dict(numbers.rates),
        "errors": errors(load),
        "registered": len(load.registered),
        "registration_errors": load.registration_errors,
    }
