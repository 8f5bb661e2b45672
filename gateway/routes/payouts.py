"""Being paid on chain, from elsewhere: contributors register their address and fetch their claim files.

The gateway speaks to no node and holds no key of the chain. Nothing of metering.chain is loaded before the first call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.edge import Anyone, Held, answer, listing, own_or_admin, read_json
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound
from gateway.services import Services

router = APIRouter(prefix="/v1", tags=["payouts"])


@router.get("/payout_address")
async def payout_address(services: Held, caller: Anyone, account: str | None = None) -> Response:
    """Where an account is paid, on which chain, and the sequence that its next binding must have."""
    return answer(await services.call(_perform, _address, services, own_or_admin(caller, account)))


@router.post("/payout_address")
async def bind(request: Request, services: Held, caller: Anyone) -> Response:
    """A signed binding (docs/formats/chain.md) of one's own account to an address; it becomes an entry of the log."""
    body = await read_json(request)
    account = own_or_admin(caller, body.get("account") if isinstance(body.get("account"), str) else None)
    if body.get("signature") is None and not caller.is_admin:
        raise Forbidden("Only the operator records an address without its signature.")
    return answer(await services.call(_perform, _bind, services, account, body), 201)


@router.get("/claims")
async def claims(services: Held, caller: Anyone, account: str | None = None) -> Response:
    """One's claim files: with one of them, anybody can have the contract pay its address."""
    return listing(await services.call(_perform, _claims, services, own_or_admin(caller, account)))


def _perform(step: Callable[..., Any], services: Services, *arguments: Any) -> Any:
    """The step, given the deployment first; errors of the chain as errors of ours, by name."""
    try:
        from metering.chain import errors as chain
        from metering.chain.deployment import FILE_NAME, Deployment
    except ModuleNotFoundError as missing:
        raise Conflict(f"{missing.name} is not installed here.", code="chain_not_installed") from None
    path = services.settings.data / FILE_NAME
    if not path.exists():
        raise NotFound("Nothing is paid on chain here.", code="chain_not_deployed")
    try:
        return step(services, Deployment.load(path), *arguments)
    except chain.BindingInvalid as error:
        raise InvalidRequest(str(error), code="binding_invalid") from None
    except chain.BindingMissing as error:
        raise NotFound(str(error), code="payout_address_unknown") from None
    except chain.NothingPublished as error:
        raise NotFound(str(error), code="nothing_published") from None


def _address(services: Services, deployment: Any, account: str) -> dict[str, Any]:
    from metering.chain.binding import bindings

    with services.ledger.store.read() as connection:
        known = bindings(connection, deployment.chain_id).get(account)
    return {
        "object": "payout_address",
        "account": account,
        "chain_id": deployment.chain_id,
        "distributor": deployment.distributor,
        "address": known.address if known else None,
        "next_sequence": known.sequence + 1 if known else 1,
        "binding": known.document() if known else None,
    }


def _bind(services: Services, deployment: Any, account: str, body: dict[str, Any]) -> dict[str, Any]:
    from metering.chain.binding import parse_binding, record_binding
    from metering.chain.errors import BindingInvalid

    binding = parse_binding(body)
    if binding.account != account:
        raise BindingInvalid(f"account: {binding.account!r} is not {account}")
    if binding.chain_id != deployment.chain_id:
        raise BindingInvalid(f"chain_id: {binding.chain_id}, but this gateway pays on chain {deployment.chain_id}")
    digest = record_binding(services.ledger, binding)
    return {"object": "payout_binding", "digest": digest, **binding.document()}


def _claims(services: Services, deployment: Any, account: str) -> list[dict[str, Any]]:
    from metering.chain.claimfile import claim_files

    return [item.document() for item in claim_files(services.ledger, deployment, account)]
