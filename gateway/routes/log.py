"""The transparency log for anyone, without API key: C2SP tlog-tiles, the keys that sign it, its public documents."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from gateway.edge import Held, listing
from gateway.errors import NotFound
from metering.errors import TileUnknown
from metering.log_entries import list_entries, public_document
from metering.tiles import tile

router = APIRouter(prefix="/log", tags=["log"])


@router.get("/key")
async def key(services: Held) -> Response:
    """The log's public keys: the one in use, then the retired ones (docs/formats/checkpoint.md)."""
    path = services.metering.log_public_key_path
    if not path.exists():
        raise TileUnknown("the settler has not made the log's key yet")
    return PlainTextResponse(path.read_text())


@router.get("/entries")
async def entries(services: Held, type: str | None = None, after: int = -1, limit: int = 100) -> Response:
    """All entries but usage, in the log's order, with the documents that are public: of one type or of all."""
    return listing(await services.call(list_entries, services.ledger, type, after, limit))


@router.get("/documents/{digest}")
async def document(digest: str, services: Held) -> Response:
    """The canonical bytes of a public document."""
    body = await services.call(public_document, services.ledger, digest)
    if body is None:
        raise NotFound(f"no public document {digest}", code="document_not_found")
    return Response(body, media_type="application/json")


@router.get("/{path:path}")
async def static(path: str, services: Held) -> Response:
    """checkpoint, tile/<L>/<N>[.p/<W>], tile/entries/<N>[.p/<W>]."""
    body, media_type = await services.call(tile, services.ledger, path)
    return Response(body, media_type=media_type)
