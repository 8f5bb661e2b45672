"""Accounts, keys and prepaid credit."""

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.edge import Admin, Anyone, Held, answer, listing, own_or_admin, read_json
from gateway.errors import InvalidRequest
from gateway.services import Services

router = APIRouter(prefix="/v1", tags=["accounts"])
CREDIT_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
NANOS = Decimal(10) ** 9


@router.post("/accounts")
async def create_account(request: Request, services: Held, caller: Admin) -> Response:
    """{"name", "role"?}: a new account, its namespace and its wallet."""
    body = await read_json(request)
    return answer(await services.call(_create, services, text(body, "name"), text(body, "role", "member")), 201)


def _create(services: Services, name: str, role: str) -> dict:
    services.registry.claim(name, acting=name)
    services.ledger.open_wallet(name).require(name)
    return services.accounts.create(name, role)


@router.get("/accounts")
async def list_accounts(services: Held, caller: Admin) -> Response:
    """All accounts."""
    return listing(await services.call(services.accounts.all))


@router.get("/accounts/{name}")
async def show_account(name: str, services: Held, caller: Anyone) -> Response:
    """An account and its wallet: one's own, or any for the operator."""
    account = await services.call(services.accounts.get, own_or_admin(caller, name))
    return answer(account | {"wallet": await services.call(wallet, services, name)})


@router.post("/accounts/{name}/keys")
async def create_key(name: str, request: Request, services: Held, caller: Anyone) -> Response:
    """{"label"?}: a new API key; its secret is in this answer and nowhere else."""
    label = text(await read_json(request), "label", "")
    return answer(await services.call(services.accounts.create_key, own_or_admin(caller, name), label), 201)


@router.get("/accounts/{name}/keys")
async def list_keys(name: str, services: Held, caller: Anyone) -> Response:
    """The keys of an account, without secrets."""
    return listing(await services.call(services.accounts.keys, own_or_admin(caller, name)))


@router.delete("/accounts/{name}/keys/{key_id}")
async def revoke_key(name: str, key_id: str, services: Held, caller: Anyone) -> Response:
    """Revokes a key at once."""
    return answer(await services.call(services.accounts.revoke_key, own_or_admin(caller, name), key_id))


@router.post("/credit")
async def add_credit(request: Request, services: Held, caller: Admin) -> Response:
    """{"account", "amount" | "amount_nanos"}: prepaid credit; the same Idempotency-Key credits once."""
    body = await read_json(request)
    account, amount_nanos = text(body, "account"), _amount_nanos(body)
    credit_id = request.headers.get("idempotency-key", request.state.request_id)
    if not CREDIT_ID.fullmatch(credit_id):
        raise InvalidRequest(f"Idempotency-Key must match {CREDIT_ID.pattern}", code="invalid_key")
    return answer(await services.call(_credit, services, f"credit/{credit_id}", account, amount_nanos))


def _credit(services: Services, transfer_id: str, account: str, amount_nanos: int) -> dict:
    services.accounts.get(account)
    status = services.ledger.credit(transfer_id, account, amount_nanos)
    status.require(transfer_id)
    return {
        "object": "credit",
        "id": transfer_id,
        "account": account,
        "amount_nanos": amount_nanos,
        "status": str(status),
        "wallet": wallet(services, account),
    }


def wallet(services: Services, account: str) -> dict:
    """The prepaid credit of an account."""
    balance = services.ledger.balance(account)
    return {
        "currency": services.metering.currency,
        "credits_nanos": balance.credits,
        "debits_nanos": balance.debits,
        "held_nanos": balance.held,
        "available_nanos": balance.available,
    }


def _amount_nanos(body: dict[str, Any]) -> int:
    """`amount_nanos` (integer), or `amount` (decimal text in whole units, up to nine decimals)."""
    if type(body.get("amount_nanos")) is int:
        return body["amount_nanos"]
    try:
        nanos = Decimal(text(body, "amount")) * NANOS
    except InvalidOperation:
        raise InvalidRequest("amount must be a decimal number such as '12.50'", param="amount") from None
    if not nanos.is_finite() or nanos != nanos.to_integral_value():
        raise InvalidRequest("amount has at most nine decimals", param="amount")
    return int(nanos)


def text(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """A string member of a body. Raises InvalidRequest when it is missing (without default) or no string."""
    value = body.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"'{name}' must be a string", param=name, code="missing_required_parameter")
    return value
