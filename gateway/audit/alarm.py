"""Alarms: when an adapter's served scores are no longer as faithful as its fidelity report says."""

import time
from collections.abc import Callable
from typing import Any

from gateway.audit.correlation import Correlation, pooled
from gateway.audit.store import AuditStore, Result
from metering.canonical import canonical_bytes

WINDOW_REQUESTS = 200
LEAST_REQUESTS = 8
MISMATCHES = 2
"""Requests of a window whose served sums differ from recomputed ones, from which on it is not one engine's hiccup."""

KIND = "audit_alarm"
Log = Callable[[str, bytes], Any]


def window_of(store: AuditStore, adapter: str) -> list[Result]:
    """The newest audited requests of an adapter, all by the scorer of the newest."""
    window = store.window(adapter, WINDOW_REQUESTS)
    return [result for result in window if result.scorer == window[0].scorer]


def correlation_of(window: list[Result]) -> Correlation:
    """Over all tokens of a window that is not empty."""
    return pooled([result.moments for result in window if result.moments is not None])


def judge(store: AuditStore, adapter: str, log: Log) -> bool:
    """Raises or clears the adapter's alarm from its window; True while one stands. A new alarm is an entry of the log.

    Drift: the 95% interval of the window's correlation lies below the reported interval. Served: at least two requests
    whose served sums are not what the head gives.
    """
    window = window_of(store, adapter)
    if len(window) < LEAST_REQUESTS:
        return store.open_alarm(adapter) is not None
    found, reported = correlation_of(window), window[0].reported
    mismatched = sum(result.status == "served_mismatch" for result in window)
    causes = ["served"] if mismatched >= MISMATCHES else []
    if reported is not None and found.is_below(Correlation.of(reported)):
        causes.insert(0, "drift")
    standing = store.open_alarm(adapter)
    if causes and standing is None:
        document = {
            "type": "audit-alarm",
            "adapter": adapter,
            "causes": causes,
            "scorer": window[0].scorer,
            "requests": len(window),
            "tokens": sum(result.tokens for result in window),
            "mismatched": mismatched,
            "correlation": found.record(),
            "reported": reported,
            "created_ms": time.time_ns() // 1_000_000,
        }
        content = canonical_bytes(document)
        log(KIND, content)
        store.raise_alarm(adapter, content)
    elif not causes and standing is not None:
        store.clear_alarm(adapter)
    return bool(causes)
