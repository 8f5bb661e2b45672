"""The engine's HTTP face: vLLM's OpenAI routes with the METER added in band, and our own routes beside them."""

import re
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.engine.errors import EngineError
from gateway.engine.meter import Generation, Meter
from gateway.engine.residency import Entry, Residency

METERED_PATHS = ("/v1/chat/completions", "/v1/completions")
REQUEST_HEADER = "x-openledger-request"
TOKENS_HEADER = "x-openledger-tokens"
DONE = b"data: [DONE]"
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")

router = APIRouter(prefix="/openledger")


class MeteringMiddleware:
    """Opens a Generation for each metered request and puts its METER into the response.

    A metered path without the request header is refused: tokens that nobody meters are not generated. The request waits
    here until its adapter is in host memory; one whose adapter cannot be brought there is answered with that error.
    """

    def __init__(self, app: ASGIApp, meter: Meter, residency: Residency, introduce: Callable[[Entry], None]):
        """`introduce` makes an adapter's name known to vLLM's routes."""
        self.app = app
        self.meter = meter
        self.residency = residency
        self.introduce = introduce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in METERED_PATHS:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        request_id = headers.get(REQUEST_HEADER)
        generation = self.meter.open(request_id, TOKENS_HEADER in headers) if request_id else None
        if generation is None:
            reason = "in use" if request_id else "missing"
            return await _refuse(f"{REQUEST_HEADER} is {reason}")(scope, receive, send)
        MutableHeaders(scope=scope)["x-request-id"] = generation.request_id
        try:
            body = await _read(receive)
            await self._answer(scope, _Replay(body, receive), _MeteredSend(send, generation), _adapter(body))
        except EngineError as error:
            await JSONResponse(error.body(), error.status)(scope, receive, send)
        finally:
            self.meter.close(generation.request_id)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, adapter: str | None) -> None:
        if adapter is None:
            return await self.app(scope, receive, send)
        async with self.residency.lease(adapter) as entry:
            self.introduce(entry)
            await self.app(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _adapter(body: bytes) -> str | None:
    """The adapter digest a request names as its model; None for the base model and for what vLLM is to refuse."""
    try:
        model = orjson.loads(body)["model"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return model if isinstance(model, str) and HEX_DIGEST.fullmatch(model) else None


class _Replay:
    """A request's body once more, then what else the connection says."""

    def __init__(self, body: bytes, receive: Receive):
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _refuse(message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": 400}}, 400)


class _MeteredSend:
    """Rewrites one response: a METER event before each SSE chunk, or a METER member at the head of a JSON body."""

    def __init__(self, send: Send, generation: Generation):
        self._send = send
        self._generation = generation
        self._streaming = False
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            self._streaming = content_type.startswith("text/event-stream")
            if self._streaming:
                await self._send(message)
            else:
                self._start = message
        elif message["type"] == "http.response.body" and self._streaming:
            await self._stream(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_whole()
        else:
            await self._send(message)

    async def _stream(self, message: Message) -> None:
        body = message.get("body", b"")
        delta = self._generation.take_delta(final=DONE in body)
        if delta is not None:
            event = b"event: openledger\ndata: " + orjson.dumps(delta) + b"\n\n"
            body = body.replace(DONE, event + DONE, 1) if DONE in body else event + body
        await self._send({**message, "body": body})

    async def _send_whole(self) -> None:
        start, body = self._start, bytes(self._body)
        assert start is not None
        if start["status"] == 200 and body.startswith(b"{"):
            meter = orjson.dumps(self._generation.take_delta(final=True))
            body = b'{"openledger":' + meter + b"," + body[1:]
            MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


@router.post("/abort/{request_id}")
async def abort(request_id: str, request: Request) -> JSONResponse:
    """Stops a request; its response ends with finish_reason `abort`. Safe to repeat and to call too late."""
    generation = request.app.state.meter.find(request_id)
    if generation is None:
        return _unknown(request_id)
    await request.app.state.engine_client.abort(list(generation.vllm_ids))
    return JSONResponse({"aborted": request_id})


@router.get("/generated/{request_id}")
async def generated(request_id: str, request: Request) -> JSONResponse:
    """The totals of a request, `final` once its response has ended."""
    generation = request.app.state.meter.find(request_id)
    if generation is None:
        return _unknown(request_id)
    return JSONResponse(generation.summary())


@router.post("/forget")
async def forget(request: Request) -> JSONResponse:
    """{"request_ids"}: lets the engine forget finished requests; those it does not know do not count."""
    meter = request.app.state.meter
    return JSONResponse({"forgotten": sum(map(meter.forget, (await request.json())["request_ids"]))})


def _unknown(request_id: str) -> JSONResponse:
    error = {
        "message": f"unknown request {request_id}",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_not_found",
    }
    return JSONResponse({"error": error}, 404)


@router.post("/adapters/{digest}/pin")
async def pin(digest: str, request: Request) -> JSONResponse:
    """Brings an adapter into host memory and keeps it there."""
    try:
        entry = await request.app.state.residency.pin(digest)
    except EngineError as error:
        return JSONResponse(error.body(), error.status)
    return JSONResponse({"pinned": entry.digest, "bytes": entry.bytes})


@router.delete("/adapters/{digest}/pin")
async def unpin(digest: str, request: Request) -> JSONResponse:
    """Lets a pinned adapter leave when memory is needed. Safe to repeat."""
    request.app.state.residency.unpin(digest)
    return JSONResponse({"unpinned": digest})


@router.post("/adapters/{digest}/evict")
async def evict(digest: str, request: Request) -> JSONResponse:
    """Forgets an adapter that nobody uses: its next request reads it from disk."""
    return JSONResponse({"evicted": await request.app.state.residency.evict(digest)})


@router.get("/engine")
async def engine(request: Request) -> JSONResponse:
    """What this engine serves and holds: base model, limits, versions, and where each adapter is."""
    state: Any = request.app.state
    report = (await state.engine_client.collective_rpc("attribution_report"))[0]
    residency = state.residency.report(set(report["in_slots"]))
    adapters = residency["adapters"]
    report["in_slots"] = [one["digest"] for one in adapters if one["place"] == "slot"]
    report["in_host_cache"] = [one["digest"] for one in adapters if one["place"] in ("slot", "host")]
    known = sorted(one["digest"] for one in adapters)
    return JSONResponse(state.engine_facts | {"attribution": report, "known": known, "residency": residency})
