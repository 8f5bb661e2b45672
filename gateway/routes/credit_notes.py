"""Credit notes: given by the operator, read as JSON, page and PDF by those whose invoices they are on."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from gateway.accounts import Caller
from gateway.edge import Admin, Anyone, Held, answer, listing, read_json
from gateway.errors import NotFound
from gateway.pages.credit_note_pdf import credit_note_pdf
from gateway.pages.html_pages import credit_note_html
from gateway.routes.accounts import text
from gateway.routes.billing import file_answer, may_see, perform, require_number, whose
from gateway.services import Services
from metering.credit_note import credit_invoice, get_credit_note, list_credit_notes
from metering.invoice_lifecycle import get_invoice

router = APIRouter(prefix="/v1", tags=["billing"])


@router.get("/billing/credit_notes")
async def all_credit_notes(services: Held, caller: Anyone, account: str | None = None) -> Response:
    """One's own credit notes; for the operator, of one account or of all."""
    return listing(await perform(services, list_credit_notes, whose(caller, account)))


@router.get("/credit_notes/{number}.html")
async def credit_note_page(number: str, services: Held, caller: Anyone) -> Response:
    """A printable page."""
    note = await find_note(services, caller, number)
    return HTMLResponse(credit_note_html(note, await _its_invoice(services, note)))


@router.get("/credit_notes/{number}.pdf")
async def credit_note_document(number: str, services: Held, caller: Anyone) -> Response:
    """A PDF."""
    note = await find_note(services, caller, number)
    body = await services.call(credit_note_pdf, note, await _its_invoice(services, note))
    return file_answer(body, "application/pdf", f"{number}.pdf")


@router.get("/credit_notes/{number}")
async def credit_note(number: str, services: Held, caller: Anyone) -> Response:
    """The document of a credit note of one's own."""
    return answer({"object": "credit_note", **await find_note(services, caller, number)})


@router.get("/credit_notes/{number}/document")
async def canonical_credit_note(number: str, services: Held, caller: Anyone) -> Response:
    """The canonical bytes whose digest is in the transparency log."""
    note = await find_note(services, caller, number)
    body = await services.call(services.ledger.document, note["digest"])
    return Response(body, media_type="application/json")


@router.post("/invoices/{number}/credit_notes")
async def credit(number: str, request: Request, services: Held, caller: Admin) -> Response:
    """{"amount_nanos", "reason"}: gives back a net amount and its part of the tax."""
    require_number(number)
    body = await read_json(request)
    reason = text(body, "reason", "")
    note = await perform(services, credit_invoice, number, body.get("amount_nanos"), reason)
    return answer({"object": "credit_note", **note}, 201)


async def find_note(services: Services, caller: Caller, number: str) -> dict[str, Any]:
    """A credit note that the caller may see. Another tenant's is not found, if it exists or not."""
    note = await perform(services, get_credit_note, number)
    if not may_see(caller, note["tenant"]):
        raise NotFound(f"credit_note_unknown: {number}", code="credit_note_unknown")
    return note


async def _its_invoice(services: Services, note: dict[str, Any]) -> dict[str, Any] | None:
    """The invoice that it is on; None when the month had none yet."""
    return await perform(services, get_invoice, note["invoice"]) if note["invoice"] else None
