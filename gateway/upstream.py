"""The gateway's side of the engine protocol (docs/ARCHITECTURE.md): HTTP over the engine's Unix socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson

from gateway import sse
from gateway.errors import EngineUnavailable, GatewayError, from_engine
from gateway.parameters import PROMPT_SHAPING, Generation

REQUEST_HEADER = "x-openledger-request"
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
NOT_STARTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class EngineLost(Exception):
    """The engine broke off after it took the request: tokens may have been generated, the tally knows."""


class EngineClient:
    """A connection pool to one engine. EngineUnavailable means that nothing was started, EngineLost that it may be."""

    def __init__(self, socket: Path, connect_seconds: float, silence_seconds: float) -> None:
        self._http = httpx.AsyncClient(
            base_url="http://engine",
            transport=httpx.AsyncHTTPTransport(
                uds=str(socket), limits=httpx.Limits(max_connections=4096, max_keepalive_connections=64)
            ),
            timeout=httpx.Timeout(silence_seconds, connect=connect_seconds),
        )
        self._context_length: int | None = None

    async def close(self) -> None:
        await self._http.aclose()

    async def healthy(self) -> bool:
        """True when the engine answers its health check."""
        try:
            return (await self._http.get("/health", timeout=5)).status_code == 200
        except httpx.HTTPError:
            return False

    async def facts(self) -> dict[str, Any]:
        """What the engine publishes of itself: model, versions, slots, resident adapters."""
        return await self._get("/openledger/engine")

    async def context_length(self) -> int:
        """Tokens that a prompt and its completion may have together; a restarted engine has the same."""
        if self._context_length is None:
            models = (await self._get("/v1/models"))["data"]
            self._context_length = next(model["max_model_len"] for model in models if not model.get("parent"))
        return self._context_length

    async def count_prompts(self, base: str, generation: Generation) -> list[int]:
        """Exact tokens of each prompt of a request, from the engine's own tokenizer and chat template."""
        if generation.kind == "chat":
            shaping = {k: v for k, v in generation.passed.items() if k in PROMPT_SHAPING}
            return [await self._tokenize({"model": base, "messages": generation.passed["messages"], **shaping})]
        prompt = generation.passed["prompt"]
        prompts = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
        return [
            len(one) if isinstance(one, list) else await self._tokenize({"model": base, "prompt": one})
            for one in prompts
        ]

    async def generate(self, kind: str, body: dict[str, Any], request_id: str) -> dict[str, Any]:
        """The whole answer of a request that does not stream. Raises the translated error when the engine refuses."""
        try:
            response = await self._http.post(PATHS[kind], content=orjson.dumps(body), headers=_headers(request_id))
        except NOT_STARTED:
            raise EngineUnavailable("The engine is starting.") from None
        except httpx.HTTPError as error:
            raise EngineLost(repr(error)) from error
        if response.status_code != 200:
            raise _refusal(response)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise EngineLost("the answer is not JSON") from error

    @asynccontextmanager
    async def stream(self, kind: str, body: dict[str, Any], request_id: str) -> AsyncIterator[AsyncIterator[sse.Event]]:
        """The events of a streaming request, as soon as the engine has accepted it."""
        try:
            async with self._http.stream(
                "POST", PATHS[kind], content=orjson.dumps(body), headers=_headers(request_id)
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refusal(response)
                yield sse.read(response.aiter_bytes())
        except NOT_STARTED:
            raise EngineUnavailable("The engine is starting.") from None
        except httpx.HTTPError as error:
            raise EngineLost(repr(error)) from error

    async def abort(self, request_id: str) -> None:
        """Asks the engine to stop a request; says nothing when the engine is gone."""
        with suppress(httpx.HTTPError):  # a dead engine generates no more; the stream's reader learns of it by itself
            await self._http.post(f"/openledger/abort/{request_id}", timeout=10)

    async def generated(self, request_id: str) -> dict[str, Any] | None:
        """The totals of a request, `final` once it ended; None when the engine knows none. Raises EngineUnavailable."""
        try:
            response = await self._http.get(f"/openledger/generated/{request_id}", timeout=10)
        except httpx.HTTPError:
            raise EngineUnavailable("The engine does not answer.") from None
        return orjson.loads(response.content) if response.status_code == 200 else None

    async def forget(self, request_id: str) -> None:
        """Tells the engine that a request is durably metered and need not be remembered."""
        with suppress(httpx.HTTPError):  # the engine forgets by itself when it stops
            await self._http.delete(f"/openledger/generated/{request_id}", timeout=10)

    async def metrics(self) -> bytes:
        """vLLM's own metrics."""
        try:
            return (await self._http.get("/metrics", timeout=10)).content
        except httpx.HTTPError:
            return b""

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            response = await self._http.get(path, timeout=10)
        except httpx.HTTPError:
            raise EngineUnavailable("The engine is starting.") from None
        if response.status_code != 200:
            raise _refusal(response)
        return orjson.loads(response.content)

    async def _tokenize(self, body: dict[str, Any]) -> int:
        try:
            response = await self._http.post("/tokenize", content=orjson.dumps(body), headers=JSON)
        except httpx.HTTPError:
            raise EngineUnavailable("The engine is starting.") from None
        if response.status_code != 200:
            raise _refusal(response)
        return orjson.loads(response.content)["count"]


JSON = {"content-type": "application/json"}


def _headers(request_id: str) -> dict[str, str]:
    return {**JSON, REQUEST_HEADER: request_id}


def _refusal(response: httpx.Response) -> GatewayError:
    try:
        body: object = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        body = response.text[:500]
    return from_engine(response.status_code, body)
