"""Audits: what was found by scoring served requests again, and whose requests may be sampled."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.audit.alarm import LEAST_REQUESTS, correlation_of, window_of
from gateway.audit.store import AuditStore, Result
from gateway.edge import Admin, Anyone, Held, answer, listing, own_or_admin, read_json
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/v1/audits", tags=["audits"])


@router.get("")
async def results(services: Held, caller: Admin, adapter: str | None = None, limit: int = 100) -> Response:
    """The newest audited requests (operator): ids, never text."""
    found = await services.call(services.audits.store.results, adapter, limit)
    return listing([_result(result) for result in found])


@router.get("/summary")
async def summary(services: Held, caller: Anyone) -> Response:
    """Per adapter: audited requests by status, the window's correlation beside the reported one, and the alarm."""
    return answer(await services.call(_summary, services.audits.store, services.settings.audit_share_ppm))


@router.get("/consent")
async def consent(services: Held, caller: Anyone, account: str | None = None) -> Response:
    """Whether requests of the account may be sampled."""
    return answer(await services.call(_consent, services.audits.store, own_or_admin(caller, account)))


@router.put("/consent")
async def set_consent(request: Request, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """{"sampled": bool}: lets requests of the account be sampled, or never again."""
    body, owner, store = await read_json(request), own_or_admin(caller, account), services.audits.store
    if not isinstance(body.get("sampled"), bool):
        raise InvalidRequest("'sampled' must be true or false", param="sampled")
    await services.call(store.opt_in if body["sampled"] else store.opt_out, owner)
    return answer(await services.call(_consent, store, owner))


def _consent(store: AuditStore, account: str) -> dict[str, Any]:
    return {"object": "audit_consent", "account": account, "sampled": not store.has_opted_out(account)}


def _summary(store: AuditStore, share_ppm: int) -> dict[str, Any]:
    statuses: dict[str, dict[str, int]] = {}
    for adapter, status, number in store.counts():
        statuses.setdefault(adapter, {})[status] = number
    return {
        "object": "audit_summary",
        "share_ppm": share_ppm,
        "enabled": not store.reason,
        "reason": store.reason or None,
        "waiting": store.waiting(),
        "dropped": store.dropped(),
        "least_requests": LEAST_REQUESTS,
        "adapters": [_adapter(store, adapter, found) for adapter, found in statuses.items()],
    }


def _adapter(store: AuditStore, adapter: str, statuses: dict[str, int]) -> dict[str, Any]:
    window = window_of(store, adapter)
    return {
        "adapter": adapter,
        "statuses": statuses,
        "window": len(window),
        "scorer": window[0].scorer if window else None,
        "correlation": correlation_of(window).record() if window else None,
        "reported": window[0].reported if window else None,
        "alarm": store.open_alarm(adapter),
    }


def _result(result: Result) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if name != "moments"}
