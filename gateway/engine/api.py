"""The engine's HTTP face: vLLM's OpenAI routes with the METER added in band, and our own routes beside them."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.engine.meter import Generation, Meter

METERED_PATHS = ("/v1/chat/completions", "/v1/completions")
REQUEST_HEADER = "x-openledger-request"
DONE = b"data: [DONE]"

router = APIRouter(prefix="/openledger")


class MeteringMiddleware:
    """Opens a Generation for each metered request and puts its METER into the response.

    A metered path without the request header is refused: tokens that nobody meters are not generated.
    """

    def __init__(self, app: ASGIApp, meter: Meter):
        self.app = app
        self.meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in METERED_PATHS:
            return await self.app(scope, receive, send)
        request_id = Headers(scope=scope).get(REQUEST_HEADER)
        generation = self.meter.open(request_id) if request_id else None
        if generation is None:
            reason = "in use" if request_id else "missing"
            return await _refuse(f"{REQUEST_HEADER} is {reason}")(scope, receive, send)
        MutableHeaders(scope=scope)["x-request-id"] = generation.request_id
        try:
            await self.app(scope, receive, _MeteredSend(send, generation))
        finally:
            self.meter.close(generation.request_id)


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
        return JSONResponse({"error": {"message": f"unknown request {request_id}"}}, 404)
    generation.abort_requested = True
    await request.app.state.engine_client.abort(list(generation.vllm_ids))
    return JSONResponse({"aborted": request_id})


@router.get("/generated/{request_id}")
async def generated(request_id: str, request: Request) -> JSONResponse:
    """The totals of a request, `final` once its response has ended."""
    generation = request.app.state.meter.find(request_id)
    if generation is None:
        return JSONResponse({"error": {"message": f"unknown request {request_id}"}}, 404)
    return JSONResponse(generation.summary())


@router.delete("/generated/{request_id}")
async def forget(request_id: str, request: Request) -> JSONResponse:
    """Lets the engine forget a finished request."""
    return JSONResponse({"forgotten": request.app.state.meter.forget(request_id)})


@router.get("/engine")
async def engine(request: Request) -> JSONResponse:
    """What this engine serves and holds: base model, limits, versions, adapters in slots and in the host cache."""
    state: Any = request.app.state
    names = {r.lora_int_id: r.lora_name for r in state.openai_serving_models.lora_requests.values()}
    report = (await state.engine_client.collective_rpc("attribution_report"))[0]
    for place in ("in_slots", "in_host_cache"):
        report[place] = [names[i] for i in report.get(place, []) if i in names]
    return JSONResponse(state.engine_facts | {"attribution": report, "known": sorted(names.values())})
