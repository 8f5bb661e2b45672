"""Invoices as documents, billing profiles, and statements with proofs."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from gateway.accounts import Caller
from gateway.edge import Admin, Anyone, Held, answer, listing, own_or_admin, read_json
from gateway.errors import Conflict, Forbidden, GatewayError, InvalidRequest, NotFound
from gateway.pages.html_pages import invoice_html
from gateway.pages.invoice_pdf import invoice_pdf
from gateway.routes.accounts import text
from gateway.services import OPERATOR, Services
from metering.billing_profile import BillingProfile, get_profile, parse_profile, put_profile
from metering.billing_status import BillingStatus
from metering.errors import BillingRefused, PeriodInvalid, UsageUnknown
from metering.focus import cost_and_usage, invoice_detail
from metering.invoice import build_invoice, render_invoice
from metering.invoice_lifecycle import finalise_invoice, get_invoice, list_invoices, pay_invoice, void_invoice
from metering.month_end import finalise_due
from metering.period import parse_period
from metering.statement_proof import build_statement_proof

router = APIRouter(prefix="/v1", tags=["billing"])
DATASETS = ("invoice_detail", "cost_and_usage")
REFUSALS: dict[str, type[GatewayError]] = {
    **dict.fromkeys(("invoice_unknown", "credit_note_unknown", "dispute_unknown"), NotFound),
    **dict.fromkeys(("period_not_a_month", "profile_invalid", "reason_missing", "amount_invalid"), InvalidRequest),
}
RETRY_SECONDS = 5.0


async def perform(services: Services, function: Any, *arguments: Any, **named: Any) -> Any:
    """A step of billing; its refusals as errors of ours, by name. Another tenant's receipt is simply not found."""
    try:
        return await services.call(function, services.ledger, *arguments, **named)
    except BillingRefused as refused:
        if refused.status == BillingStatus.RECEIPT_OF_OTHER_TENANT:
            raise UsageUnknown(f"no settled usage {arguments[1]}") from None
        later = RETRY_SECONDS if refused.status == BillingStatus.WINDOW_OPEN else None
        kind = REFUSALS.get(str(refused.status), Conflict)
        raise kind(str(refused), code=str(refused.status), retry_after_seconds=later) from None


@router.get("/billing/invoices")
async def all_invoices(services: Held, caller: Anyone, account: str | None = None) -> Response:
    """One's own finalised invoices; for the operator, of one account or of all."""
    return listing(await perform(services, list_invoices, whose(caller, account)))


@router.get("/invoices/{identifier}.csv")
async def invoice_csv(
    identifier: str, services: Held, caller: Anyone, account: str | None = None, dataset: str = "invoice_detail"
) -> Response:
    """FOCUS 1.4: dataset=invoice_detail (default) or cost_and_usage."""
    if dataset not in DATASETS:
        raise InvalidRequest(f"dataset must be one of {', '.join(DATASETS)}", param="dataset")
    invoice = await find_invoice(services, caller, identifier, account)
    if dataset == "invoice_detail":
        body = invoice_detail(invoice)
    else:
        body = await perform(services, cost_and_usage, invoice)
    return file_answer(body.encode(), "text/csv; charset=utf-8", f"{identifier}-{dataset}.csv")


@router.get("/invoices/{identifier}.html")
async def invoice_page(identifier: str, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """A printable page."""
    return HTMLResponse(invoice_html(await find_invoice(services, caller, identifier, account)))


@router.get("/invoices/{identifier}.pdf")
async def invoice_document(identifier: str, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """A PDF."""
    invoice = await find_invoice(services, caller, identifier, account)
    return file_answer(await services.call(invoice_pdf, invoice), "application/pdf", f"{identifier}.pdf")


@router.get("/invoices/{identifier}")
async def one_invoice(
    identifier: str, services: Held, caller: Anyone, account: str | None = None, format: str = "json"
) -> Response:
    """An invoice by number (INV-000001), or of a period (2026-11): the finalised one, else the draft."""
    invoice = await find_invoice(services, caller, identifier, account)
    if format == "text":
        return PlainTextResponse(render_invoice(invoice))
    return answer({"object": "invoice", "id": invoice["number"] or f"draft-{invoice['period']}", **invoice})


@router.get("/invoices/{number}/document")
async def canonical_invoice(number: str, services: Held, caller: Anyone) -> Response:
    """The canonical bytes whose digest is in the transparency log."""
    invoice = await find_invoice(services, caller, number, None)
    if "digest" not in invoice:
        raise BillingStatus.INVOICE_IS_DRAFT.refuse(f"{number} is a draft")
    body = await services.call(services.ledger.document, invoice["digest"])
    return Response(body, media_type="application/json")


@router.post("/invoices")
async def finalise(request: Request, services: Held, caller: Admin) -> Response:
    """{"account", "period"}: finalises the invoice of a calendar month that is over."""
    body = await read_json(request)
    tenant = text(body, "account")
    await services.call(services.accounts.get, tenant)
    invoice = await perform(services, finalise_invoice, tenant, text(body, "period"))
    return answer({"object": "invoice", "id": invoice["number"], **invoice}, 201)


@router.post("/invoices/{identifier}/finalise")
async def finalise_draft(identifier: str, services: Held, caller: Admin, account: str | None = None) -> Response:
    """Finalises a draft, named by its period (2026-10) with ?account=; another is `invoice_not_draft`."""
    found = await find_invoice(services, caller, identifier, account)
    if found["number"] is not None:
        raise BillingStatus.INVOICE_NOT_DRAFT.refuse(f"{found['number']} is {found['status']}")
    invoice = await perform(services, finalise_invoice, found["tenant"], found["period"])
    return answer({"object": "invoice", "id": invoice["number"], **invoice}, 201)


@router.post("/billing/close")
async def close_month(request: Request, services: Held, caller: Admin) -> Response:
    """{"period"?}: finalises all invoices that are due, of one month or of all that are over. Again makes none."""
    body = await read_json(request)
    made = await perform(services, finalise_due, text(body, "period") if "period" in body else None)
    return listing([{"object": "invoice", "id": invoice["number"], **invoice} for invoice in made])


@router.post("/invoices/{number}/pay")
async def pay(number: str, services: Held, caller: Anyone) -> Response:
    """Pays what is due from the wallet."""
    require_number(number)
    await find_invoice(services, caller, number, None)
    return answer({"object": "invoice", "id": number, **await perform(services, pay_invoice, number)})


@router.post("/invoices/{number}/void")
async def void(number: str, request: Request, services: Held, caller: Admin) -> Response:
    """{"reason"}: withdraws an open invoice; its number stays taken."""
    require_number(number)
    reason = text(await read_json(request), "reason", "")
    return answer({"object": "invoice", "id": number, **await perform(services, void_invoice, number, reason)})


@router.get("/billing/profile")
async def profile(services: Held, caller: Anyone, account: str | None = None) -> Response:
    """What invoices print about an account; the operator's is the issuer's."""
    name = own_or_admin(caller, account)
    return answer(_profile(name, await perform(services, get_profile, name)))


@router.put("/billing/profile")
async def change_profile(request: Request, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """Replaces it, for invoices that are finalised later. Only the operator sets tax, terms and notes."""
    name = own_or_admin(caller, account)
    value = await read_json(request)
    if not caller.is_admin:
        kept = await perform(services, get_profile, name)
        ours = ("tax_label", "tax_rate_ppm", "terms_days", "dispute_days", "note")
        if ours_set := sorted(value.keys() & set(ours)):
            raise Forbidden(f"Only the operator sets {', '.join(ours_set)}.")
        value = {**value, **{member: getattr(kept, member) for member in ours}}
    changed = await perform(services, lambda _: parse_profile(value))
    await perform(services, put_profile, name, changed)
    return answer(_profile(name, changed))


@router.get("/statements/proof")
async def statement_proof(
    services: Held, caller: Anyone, account: str | None = None, period: str | None = None
) -> Response:
    """One's statement with windows, receipts and inclusion proofs; `openledger verify` checks it offline."""
    body = await perform(services, build_statement_proof, own_or_admin(caller, account), period)
    return Response(body, media_type="application/json")


async def find_invoice(services: Services, caller: Caller, identifier: str, account: str | None) -> dict[str, Any]:
    """An invoice that the caller may see, by number or period. Another tenant's is not found, if it exists or not."""
    try:
        tenant = own_or_admin(caller, account)
        return await perform(services, build_invoice, tenant, identifier.removeprefix("draft-"), OPERATOR)
    except PeriodInvalid:
        invoice = await perform(services, get_invoice, identifier, OPERATOR)
    if not may_see(caller, invoice["tenant"]):
        raise NotFound(f"invoice_unknown: {identifier}", code="invoice_unknown")
    return invoice


def require_number(identifier: str) -> None:
    """Refuses `invoice_is_draft` for a period, which names a draft: paid, voided, credited is what has a number."""
    try:
        parse_period(identifier.removeprefix("draft-"))
    except PeriodInvalid:
        return
    raise BillingStatus.INVOICE_IS_DRAFT.refuse(f"{identifier} is not the number of a finalised invoice")


def whose(caller: Caller, account: str | None) -> str | None:
    """The account to list: one's own; for the operator any, or all (None)."""
    return account if caller.is_admin else own_or_admin(caller, account)


def may_see(caller: Caller, tenant: str) -> bool:
    """Whether a tenant's documents are the caller's to see."""
    return caller.is_admin or caller.account == tenant


def _profile(account: str, profile: BillingProfile) -> dict[str, Any]:
    return {"object": "billing_profile", "account": account, **asdict(profile)}


def file_answer(body: bytes, media_type: str, name: str) -> Response:
    """A document to look at, with the name under which it is saved."""
    return Response(body, media_type=media_type, headers={"content-disposition": f'inline; filename="{name}"'})
