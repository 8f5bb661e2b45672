"""The OpenAI surface: models, chat completions, completions."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from gateway import sse
from gateway.accounts import Caller
from gateway.admission import Admitted, admit
from gateway.answers import StoredAnswer
from gateway.edge import Anyone, Held, answer, listing, read_body
from gateway.errors import StillInFlight
from gateway.parameters import parse
from gateway.relay import Relay
from gateway.services import Services
from gateway.timing import Timing
from gateway.upstream import PATHS

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models")
async def models(services: Held, caller: Anyone) -> Response:
    """All models that can be asked for."""
    return listing(await services.call(lambda: list(services.catalog.models())))


@router.get("/models/{name:path}")
async def model(name: str, services: Held, caller: Anyone) -> Response:
    """One model; names contain a slash."""
    return answer(await services.call(services.catalog.model, name))


@router.post("/chat/completions")
async def chat_completions(request: Request, services: Held, caller: Anyone) -> Response:
    """OpenAI's chat completions, metered and attributed."""
    return await _generate("chat", request, services, caller)


@router.post("/completions")
async def completions(request: Request, services: Held, caller: Anyone) -> Response:
    """OpenAI's completions, metered and attributed."""
    return await _generate("text", request, services, caller)


async def _generate(kind: str, request: Request, services: Services, caller: Caller) -> Response:
    raw = await read_body(request, services.settings.max_body_bytes)
    generation = parse(kind, raw, services.settings.max_choices)
    request_id = request.state.request_id
    key = request.headers.get("idempotency-key")
    if key is not None and (stored := await services.call(_claim, services, caller, key, kind, raw, request_id)):
        return _replay(stored)
    try:
        admitted = await admit(services, caller, generation, request_id, idempotency_key=key)
    except BaseException:
        if key is not None:
            await services.call(services.answers.release, request_id)
        raise
    return await _relay(request, admitted)


def _claim(services: Services, caller: Caller, key: str, kind: str, raw: bytes, request_id: str) -> StoredAnswer | None:
    """The stored answer of a key, once its event is durable; None when this request is the first."""
    stored = services.answers.claim(caller.account, key, PATHS[kind], raw, request_id)
    if stored and services.flights.is_open(stored.request_id):
        raise StillInFlight("The answer to this Idempotency-Key is being metered.", retry_after_seconds=1)
    return stored


def _replay(stored: StoredAnswer) -> Response:
    headers = {"x-request-id": stored.request_id, "x-openledger-replayed": "true"}
    return Response(stored.body, stored.status, headers, media_type=stored.media_type)


async def _relay(request: Request, admitted: Admitted) -> Response:
    relay: Relay = request.app.state.relay
    timing = Timing(request.state.received)
    headers = admitted.standing.headers() if admitted.standing else {}
    if admitted.generation.stream:
        chunks: AsyncIterator[bytes] = await relay.stream(admitted, timing)
        headers |= {"cache-control": "no-cache"} | timing.headers()
        return StreamingResponse(chunks, headers=headers, media_type=sse.MEDIA_TYPE)
    body = await relay.whole(admitted, lambda: _disconnected(request), timing)
    return Response(body, 200, headers | timing.headers(), media_type="application/json")


async def _disconnected(request: Request) -> None:
    """Returns when the client is gone; the body has been read, so nothing else can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
