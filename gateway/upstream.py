"""The gateway's side of the engine protocol (docs/ARCHITECTURE.md): HTTP over the engine's Unix socket.

aiohttp and not httpx, whose HTTP parser is Python: it relays a token in half the CPU time.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gateway import sse
from gateway.errors import EngineUnavailable, GatewayError, from_engine
from gateway.parameters import PROMPT_SHAPING, Generation

REQUEST_HEADER = "x-openledger-request"
TOKENS_HEADER = "x-openledger-tokens"
JSON = {"content-type": "application/json"}
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
NOT_STARTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
FAILURES = (aiohttp.ClientError, OSError)  # TimeoutError is an OSError
QUICK = aiohttp.ClientTimeout(total=10)  # of calls that generate nothing
KEPT_SECONDS = 4.0  # below the 5 s after which the engine's server closes an idle connection


class EngineLost(Exception):
    """The engine broke off after it took the request: tokens may have been generated, the tally knows."""


class EngineClient:
    """A connection pool to one engine. EngineUnavailable means that nothing was started, EngineLost that it may be."""

    def __init__(self, socket: Path, connect_seconds: float, silence_seconds: float) -> None:
        self._socket = socket
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_seconds, sock_connect=connect_seconds, sock_read=silence_seconds
        )
        self._context_length: int | None = None

    @cached_property
    def _http(self) -> aiohttp.ClientSession:
        """Made at the first call, because it belongs to the event loop that runs then."""
        return aiohttp.ClientSession(
            "http://engine",
            connector=aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=KEPT_SECONDS),
            timeout=self._timeout,
            headers=JSON,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._http.close()

    async def healthy(self) -> bool:
        """True when the engine answers its health check."""
        try:
            async with self._http.get("/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                return response.status == 200
        except FAILURES:
            return False

    async def facts(self) -> dict[str, Any]:
        """What the engine publishes of itself: model, versions, slots, resident adapters."""
        return await self._ask("GET", "/openledger/engine")

    @property
    def known_context_length(self) -> int | None:
        """`context_length` as far as it has been asked for."""
        return self._context_length

    async def context_length(self) -> int:
        """Tokens that a prompt and its completion may have together; a restarted engine has the same."""
        if self._context_length is None:
            models = (await self._ask("GET", "/v1/models"))["data"]
            self._context_length = next(model["max_model_len"] for model in models if not model.get("parent"))
        return self._context_length

    async def count_prompts(self, base: str, generation: Generation) -> list[int]:
        """Exact tokens of each prompt of a request, from the engine's own tokenizer and chat template."""
        if generation.kind == "chat":
            shaping = {k: v for k, v in generation.passed.items() if k in PROMPT_SHAPING}
            return [await self._tokenize({"model": base, "messages": generation.passed["messages"], **shaping})]
        return [
            len(one) if isinstance(one, list) else await self._tokenize({"model": base, "prompt": one})
            for one in generation.text_prompts
        ]

    async def generate(self, kind: str, body: dict[str, Any], request_id: str, *, tokens: bool) -> dict[str, Any]:
        """The whole answer of a request that does not stream; `tokens` asks for each one's text and scores.

        Raises the translated error when the engine refuses.
        """
        async with self._generation(kind, body, request_id, tokens) as response:
            content = await response.read()
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise EngineLost("the answer is not JSON") from error

    @asynccontextmanager
    async def stream(
        self, kind: str, body: dict[str, Any], request_id: str, *, tokens: bool
    ) -> AsyncIterator[AsyncIterator[list[sse.Event]]]:
        """The events of a streaming request, as soon as the engine has accepted it."""
        async with self._generation(kind, body, request_id, tokens) as response:
            yield sse.read(response.content.iter_any())

    @asynccontextmanager
    async def _generation(
        self, kind: str, body: dict[str, Any], request_id: str, tokens: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {REQUEST_HEADER: request_id} | ({TOKENS_HEADER: "1"} if tokens else {})
        try:
            async with self._http.post(PATHS[kind], data=orjson.dumps(body), headers=headers) as response:
                if response.status != 200:
                    raise await _refusal(response)
                yield response
        except NOT_STARTED:
            raise EngineUnavailable("The engine is starting.") from None
        except FAILURES as error:
            raise EngineLost(repr(error)) from error

    async def abort(self, request_id: str) -> None:
        """Asks the engine to stop a request; says nothing when the engine is gone."""
        with suppress(EngineUnavailable, GatewayError):  # a dead engine generates no more: the stream's reader notices
            await self._ask("POST", f"/openledger/abort/{request_id}")

    async def generated(self, request_id: str) -> dict[str, Any] | None:
        """The totals of a request, `final` once it ended; None when the engine knows none. Raises EngineUnavailable."""
        try:
            async with self._http.get(f"/openledger/generated/{request_id}", timeout=QUICK) as response:
                return orjson.loads(await response.read()) if response.status == 200 else None
        except FAILURES:
            raise EngineUnavailable("The engine does not answer.") from None

    async def forget(self, request_ids: Sequence[str]) -> None:
        """Tells the engine that requests are durably metered and need not be remembered."""
        with suppress(EngineUnavailable, GatewayError):  # the engine forgets by itself when it stops
            await self._ask("POST", "/openledger/forget", {"request_ids": list(request_ids)})

    async def metrics(self) -> bytes:
        """vLLM's own metrics."""
        try:
            async with self._http.get("/metrics", timeout=QUICK) as response:
                return await response.read()
        except FAILURES:
            return b""

    async def _tokenize(self, body: dict[str, Any]) -> int:
        return (await self._ask("POST", "/tokenize", body))["count"]

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A call that generates nothing. Raises EngineUnavailable, or the translated error when the engine refuses."""
        data = None if body is None else orjson.dumps(body)
        try:
            async with self._http.request(method, path, data=data, timeout=QUICK) as response:
                if response.status != 200:
                    raise await _refusal(response)
                return orjson.loads(await response.read())
        except FAILURES:
            raise EngineUnavailable("The engine is starting.") from None


async def _refusal(response: aiohttp.ClientResponse) -> GatewayError:
    content = await response.read()
    try:
        body: object = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = content[:500].decode(errors="replace")
    return from_engine(response.status, body)
