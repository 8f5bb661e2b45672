"""What was used, owed and earned: usage, invoices, statements, receipts."""

import time

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from gateway.accounts import Caller
from gateway.edge import Anyone, Held, answer, own_or_admin
from gateway.routes.accounts import wallet
from gateway.services import Services
from metering.errors import UsageUnknown
from metering.invoice import build_invoice, render_invoice
from metering.receipt import build_receipt, receipt_tenant
from metering.statement import build_statement, render_statement

router = APIRouter(prefix="/v1", tags=["money"])


@router.get("/usage")
async def usage(services: Held, caller: Anyone, account: str | None = None, period: str | None = None) -> Response:
    """The wallet of an account and what it used in a period, by model and token kind."""
    tenant = own_or_admin(caller, account)
    invoice = await services.call(build_invoice, services.ledger, tenant, period or this_month())
    return answer(
        {
            "object": "usage",
            "account": tenant,
            "wallet": await services.call(wallet, services, tenant),
            "invoice": invoice,
        }
    )


@router.get("/invoices")
async def invoices(
    services: Held, caller: Anyone, account: str | None = None, period: str | None = None, format: str = "json"
) -> Response:
    """The invoice of a period (YYYY-MM or YYYY-MM-DD; this month by default); format=text for reading."""
    tenant = own_or_admin(caller, account)
    invoice = await services.call(build_invoice, services.ledger, tenant, period or this_month())
    return PlainTextResponse(render_invoice(invoice)) if format == "text" else answer(invoice)


@router.get("/statements")
async def statements(
    services: Held, caller: Anyone, account: str | None = None, period: str | None = None, format: str = "json"
) -> Response:
    """What an account earned, by Datanet and adapter; format=text for reading."""
    person = own_or_admin(caller, account)
    statement = await services.call(build_statement, services.ledger, person, period)
    return PlainTextResponse(render_statement(statement)) if format == "text" else answer(statement)


@router.get("/receipts/{request_id}")
async def receipt(request_id: str, services: Held, caller: Anyone, witnessed: bool = False) -> Response:
    """The receipt of one's own request. Another tenant's is not found, whether it exists or not.

    witnessed=true: under the newest checkpoint that witnesses cosigned, with their cosignatures.
    """
    body = await services.call(_receipt, services, caller, request_id, witnessed)
    return Response(body, media_type="application/json")


def _receipt(services: Services, caller: Caller, request_id: str, witnessed: bool) -> bytes:
    if not caller.is_admin and receipt_tenant(services.ledger, request_id) != caller.account:
        raise UsageUnknown(f"no settled usage {request_id}")
    return build_receipt(services.ledger, request_id, witnessed=witnessed)


def this_month() -> str:
    """The running month, UTC."""
    return time.strftime("%Y-%m", time.gmtime())
