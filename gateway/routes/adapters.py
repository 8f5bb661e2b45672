"""Adapters: register (stage, canary, commit), list, show, promote, revoke."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, BinaryIO

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from adapters.errors import AdaptersError
from adapters.registry import RegisteredAdapter, RegisteredName, Registration, Staged
from gateway.canary import sing
from gateway.composed_price import check_price
from gateway.edge import Anyone, Held, answer, listing, own_or_admin, read_json, services_of
from gateway.errors import InvalidRequest, TooLarge
from gateway.routes import residency
from gateway.routes.accounts import text
from gateway.services import Services

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])
router.include_router(residency.router)  # before the route that takes any name


@router.post("")
async def register(
    request: Request,
    services: Held,
    caller: Anyone,
    name: str,
    declared: str | None = None,
    account: str | None = None,
) -> Response:
    """A package as an uncompressed tar body, for `namespace/adapter[:tag]`; served from the moment this returns.

    `declared`: a JSON object of integer weights by contributor.
    """
    acting, weights = own_or_admin(caller, account), _declared(declared)
    with tempfile.TemporaryFile(dir=services.settings.data) as upload:
        await _receive(request, upload, services.settings.max_upload_bytes)
        staged = await services.call(services.registry.stage, name, upload, acting=acting, declared=weights)
    try:
        await services.call(check_price, services.prices, staged.adapter, services.registry.by_digest)
        await sing(services, request.app.state.relay, caller, staged.adapter)
    except BaseException:
        await services.call(services.registry.discard, staged.id)
        raise
    return answer(await services.call(_commit, services, staged), 201)


def _commit(services: Services, staged: Staged) -> dict[str, Any]:
    """Terms first: nobody may be able to ask for an adapter that has none."""
    terms = services.terms.of(staged.adapter)
    registration: Registration = services.registry.commit(staged.id)
    services.publication.publish()
    return _adapter(registration.adapter) | {"name": str(registration.name), "terms": terms.digest}


async def _receive(request: Request, upload: BinaryIO, limit_bytes: int) -> None:
    """Spools the body to disk. Raises TooLarge as soon as it is longer than the limit."""
    services = services_of(request)
    async for chunk in request.stream():
        if upload.tell() + len(chunk) > limit_bytes:
            raise TooLarge(f"The package is longer than {limit_bytes} bytes.", code="package_too_large")
        await services.call(upload.write, chunk)
    upload.seek(0, os.SEEK_SET)


@router.get("")
async def list_adapters(services: Held, caller: Anyone, namespace: str | None = None) -> Response:
    """All names, or those of one namespace."""
    return listing([_name(name) for name in await services.call(services.registry.list, namespace)])


@router.post("/promote")
async def promote(request: Request, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """{"name", "to"}: lets the bare name lead to a tag or a digest."""
    body, acting = await read_json(request), own_or_admin(caller, account)
    name = text(body, "name")
    await services.call(services.registry.promote, name, text(body, "to"), acting=acting)
    return answer(await services.call(_published_name, services, name))


@router.post("/revoke")
async def revoke(request: Request, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """{"digest" | "name"}: stops an adapter from being served, under every name."""
    body, acting = await read_json(request), own_or_admin(caller, account)
    digest = body.get("digest")
    if digest is None:
        digest = (await services.call(services.registry.resolve, text(body, "name"))).digest
    await services.call(services.registry.revoke, digest, acting=acting, operator=caller.is_admin)
    return answer(await services.call(_revoked, services, digest))


@router.get("/{name:path}")
async def show(name: str, services: Held, caller: Anyone) -> Response:
    """A name with its tags and the adapter that it leads to, or an adapter or composition by digest."""
    return answer(await services.call(_show, services, name))


def _published_name(services: Services, name: str) -> dict[str, Any]:
    services.publication.publish()
    return _show(services, name)


def _revoked(services: Services, digest: str) -> dict[str, Any]:
    services.publication.publish()
    return _adapter(services.registry.by_digest(digest))


def _show(services: Services, name: str) -> dict[str, Any]:
    if name.startswith("sha256:"):
        return _adapter(services.compositions.by_digest(name))
    shown = _name(services.registry.show(name))
    try:
        adapter = services.registry.resolve(name)
    except AdaptersError as error:
        return shown | {"leads_to": None, "reason": error.code}
    return shown | {"leads_to": _adapter(adapter) | {"terms": services.terms.of(adapter).digest}}


def _name(name: RegisteredName) -> dict[str, Any]:
    return {"object": "adapter_name", "name": f"{name.namespace}/{name.adapter}", **asdict(name)}


def _adapter(adapter: RegisteredAdapter) -> dict[str, Any]:
    fields = {key: value for key, value in asdict(adapter).items() if key != "directory"}
    return {"object": "adapter", **fields}


def _declared(raw: str | None) -> Mapping[str, int] | None:
    if raw is None:
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest("declared must be a JSON object of integer weights", param="declared")
    return value
