"""Datanets: create, contribute, withdraw, version, show, list, near duplicates, export."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from adapters.document import Document
from adapters.export import export_tar
from adapters.near_duplicates import SET_ASIDE
from gateway.edge import Anyone, Held, answer, listing, own_or_admin, read_body, read_json
from gateway.errors import InvalidRequest
from gateway.routes.accounts import text
from gateway.services import Services

router = APIRouter(prefix="/v1/datanets", tags=["datanets"])
BLOCK_BYTES = 1 << 16


@router.post("")
async def create(request: Request, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """{"name", "licence", "title"?, "description"?, "split_ppm"?, "near_duplicates"?}: a Datanet of the caller's."""
    body, owner = await read_json(request), own_or_admin(caller, account)
    name = text(body, "name")
    await services.call(
        services.datanets.create,
        name,
        owner=owner,
        licence=text(body, "licence"),
        title=text(body, "title", name),
        description=text(body, "description", ""),
        split_ppm=mapping(body, "split_ppm"),
        near_duplicates=text(body, "near_duplicates", SET_ASIDE),
    )
    return answer(await services.call(_published, services, lambda: _show(services, name)), 201)


@router.get("")
async def list_datanets(services: Held, caller: Anyone) -> Response:
    """All Datanets."""
    return listing([_datanet(datanet) for datanet in await services.call(services.datanets.list)])


@router.get("/{name}")
async def show(name: str, services: Held, caller: Anyone) -> Response:
    """A Datanet with its contributions and versions."""
    return answer(await services.call(_show, services, name))


@router.get("/{name}/near-duplicates")
async def near_duplicates(name: str, services: Held, caller: Anyone) -> Response:
    """Accepted examples that repeat an earlier one: what the next version sets aside, if the Datanet does so."""
    found = await services.call(services.datanets.near_duplicates, name)
    return listing([{"object": "near_duplicate", **asdict(pair)} for pair in found])


@router.post("/{name}/policy")
async def set_policy(
    name: str, request: Request, services: Held, caller: Anyone, account: str | None = None
) -> Response:
    """{"split_ppm", "effective"?}: how the price of a token is split, from a month or day ahead on (the next month)."""
    acting, body = own_or_admin(caller, account), await read_json(request)
    split_ppm, effective = mapping(body, "split_ppm"), text(body, "effective") if "effective" in body else None
    if split_ppm is None:
        raise InvalidRequest("'split_ppm' is missing", param="split_ppm", code="missing_required_parameter")
    document = await services.call(services.datanets.set_policy, name, split_ppm, acting=acting, effective=effective)
    return answer(await services.call(_published, services, lambda: _document(document)), 201)


@router.post("/{name}/votes")
async def vote(name: str, request: Request, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """{"split_ppm", "effective"?}: a contributor's vote. The answer has the policy too when it made a majority."""
    acting, body = own_or_admin(caller, account), await read_json(request)
    split_ppm, effective = mapping(body, "split_ppm"), text(body, "effective") if "effective" in body else None
    if split_ppm is None:
        raise InvalidRequest("'split_ppm' is missing", param="split_ppm", code="missing_required_parameter")
    made = await services.call(services.datanets.vote, name, split_ppm, acting=acting, effective=effective)
    shown = {"policy": _document(made[1]) if len(made) > 1 else None}
    return answer(await services.call(_published, services, lambda: _document(made[0]) | shown), 201)


@router.post("/{name}/contributions")
async def contribute(
    name: str,
    request: Request,
    services: Held,
    caller: Anyone,
    licence: str | None = None,
    contributor: str | None = None,
    account: str | None = None,
) -> Response:
    """A JSONL body of examples: accepted whole, or refused with the line that was wrong."""
    acting = own_or_admin(caller, account)
    jsonl = await read_body(request, services.settings.max_upload_bytes)
    document = await services.call(
        services.datanets.contribute, name, jsonl, acting=acting, licence=licence, contributor=contributor
    )
    return answer(await services.call(_published, services, lambda: _document(document)), 201)


@router.delete("/{name}/contributions/{digest}")
async def withdraw(name: str, digest: str, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """Leaves a contribution out of later versions."""
    document = await services.call(services.datanets.withdraw, digest, acting=own_or_admin(caller, account))
    return answer(await services.call(_published, services, lambda: _document(document)))


@router.post("/{name}/versions")
async def version(name: str, services: Held, caller: Anyone, account: str | None = None) -> Response:
    """The version of what is accepted now."""
    document = await services.call(services.datanets.version, name, acting=own_or_admin(caller, account))
    return answer(await services.call(_published, services, lambda: _document(document)), 201)


@router.get("/{name}/export")
async def export(name: str, services: Held, caller: Anyone, version: str | None = None) -> StreamingResponse:
    """A version as an uncompressed tar that verifies from its content alone."""
    spool: BinaryIO = tempfile.TemporaryFile(dir=services.settings.data)  # noqa: SIM115 - closed by _blocks
    try:
        digest = await services.call(export_tar, services.datanets, name, spool, version)
    except BaseException:
        spool.close()
        raise
    headers = {"content-length": str(spool.tell()), "x-openledger-version": digest}
    spool.seek(0)
    return StreamingResponse(_blocks(spool), headers=headers, media_type="application/x-tar")


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _published(services: Services, shown: Any) -> Any:
    """Submits new documents to the log before the answer says that they exist."""
    services.publication.publish()
    return shown()


def _show(services: Services, name: str) -> dict[str, Any]:
    return _datanet(services.datanets.show(name)) | {
        "contributions": [asdict(contribution) for contribution in services.datanets.contributions(name)],
        "versions": [asdict(version) for version in services.datanets.versions(name)],
    }


def _datanet(datanet: Any) -> dict[str, Any]:
    return {"object": "datanet", **asdict(datanet)}


def _document(document: Document) -> dict[str, Any]:
    return {"object": document.kind, "digest": document.digest, "document": document.value()}


def mapping(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    """An object member of a body, or None. Raises InvalidRequest when it is something else."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"'{name}' must be an object", param=name)
    return value
