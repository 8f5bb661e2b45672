"""The server's side of a reconciliation: waits until all is settled, then reads receipts, journal and totals."""

import time
from collections.abc import Sequence

from loadtest.api import Gateway, until
from loadtest.errors import LoadtestError
from loadtest.journal import read_journal
from loadtest.observed import Observed
from loadtest.reconcile import Books, ending
from loadtest.target import Target

CHECK_SECONDS = 60.0


def collect(target: Target, gateway: Gateway, account: str | None, seen: Sequence[Observed], seconds: float) -> Books:
    """Books of all requests in `seen`; `account` is given when it is the run's own. Waits at most `seconds`."""
    expected = {one.request_id: one for one in seen if one.request_id}
    receipts: dict[str, dict | None] = dict.fromkeys(expected)
    deadline = time.monotonic() + seconds
    waiting = [name for name, one in expected.items() if ending(one) != "refused"]
    while waiting:
        for name in waiting:
            receipts[name] = (gateway.find(f"/receipts/{name}") or {}).get("body")
        waiting = [name for name in waiting if receipts[name] is None]
        if not waiting or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for name, one in expected.items():
        if ending(one) == "refused":
            receipts[name] = (gateway.find(f"/receipts/{name}") or {}).get("body")
    usage = None
    if account:
        left = max(1.0, deadline - time.monotonic())
        until(lambda: not gateway.get("/usage")["wallet"]["held_nanos"], left)
        usage = gateway.get("/usage")
    journal = read_journal(target.data / "journal") if target.data else None
    return Books(receipts, journal, usage, _check(target))


def _check(target: Target) -> dict | None:
    """The operator's check, once it is clean or has been unclean for long: others may have requests in flight."""
    if not target.operator_key:
        return None
    operator = Gateway(target.url, target.operator_key)
    report: dict = {}

    def clean() -> bool:
        nonlocal report
        report = operator.get("/admin/check")
        return report["clean"] and not report["totals"]["unsettled_records"]

    try:
        until(clean, CHECK_SECONDS)
    except LoadtestError as error:
        return {"findings": [{"name": "check_failed", "detail": str(error)}]}
    finally:
        operator.close()
    return report
