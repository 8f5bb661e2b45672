"""Disputes: a client contests a receipt of its own, the operator decides."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.edge import Admin, Anyone, Held, answer, listing, read_json
from gateway.errors import InvalidRequest, NotFound
from gateway.routes.accounts import text
from gateway.routes.billing import may_see, perform, whose
from metering.dispute import get_dispute, list_disputes, open_dispute, resolve_dispute

router = APIRouter(prefix="/v1", tags=["disputes"])


@router.post("/disputes")
async def dispute(request: Request, services: Held, caller: Anyone) -> Response:
    """{"request_id", "reason"}: contests one's own receipt; its amount is frozen."""
    body = await read_json(request)
    arguments = (caller.account, text(body, "request_id"), text(body, "reason", ""))
    return answer(await perform(services, open_dispute, *arguments), 201)


@router.get("/disputes")
async def disputes(services: Held, caller: Anyone, account: str | None = None, state: str | None = None) -> Response:
    """One's own disputes; for the operator, of one account or of all."""
    return listing(await perform(services, list_disputes, whose(caller, account), state))


@router.get("/disputes/{dispute_id}")
async def one_dispute(dispute_id: str, services: Held, caller: Anyone) -> Response:
    """A dispute of one's own, with its history."""
    found = await perform(services, get_dispute, dispute_id)
    if not may_see(caller, found["tenant"]):
        raise NotFound(f"dispute_unknown: {dispute_id}", code="dispute_unknown")
    return answer(found)


@router.post("/disputes/{dispute_id}/resolve")
async def resolve(dispute_id: str, request: Request, services: Held, caller: Admin) -> Response:
    """{"outcome": "uphold"|"reject", "reason", "amount_nanos"?}: the frozen amount goes to the client or back.

    With amount_nanos it is upheld for that part only.
    """
    body = await read_json(request)
    outcome = text(body, "outcome")
    if outcome not in ("uphold", "reject"):
        raise InvalidRequest("outcome must be uphold or reject", param="outcome")
    reason = text(body, "reason", "")
    decision = {"uphold": outcome == "uphold", "reason": reason, "amount_nanos": body.get("amount_nanos")}
    return answer(await perform(services, resolve_dispute, dispute_id, **decision))
