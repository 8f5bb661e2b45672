"""The transparency log for anyone's monitor, without API key: C2SP tlog-tiles, and the key that signs checkpoints."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from gateway.edge import Held
from metering.errors import TileUnknown
from metering.tiles import tile

router = APIRouter(prefix="/log", tags=["log"])


@router.get("/key")
async def key(services: Held) -> Response:
    """The log's public key, as a signed-note verifier key."""
    path = services.metering.log_public_key_path
    if not path.exists():
        raise TileUnknown("the settler has not made the log's key yet")
    return PlainTextResponse(path.read_text())


@router.get("/{path:path}")
async def static(path: str, services: Held) -> Response:
    """checkpoint, tile/<L>/<N>[.p/<W>], tile/entries/<N>[.p/<W>]."""
    body, media_type = await services.call(tile, services.ledger, path)
    return Response(body, media_type=media_type)
