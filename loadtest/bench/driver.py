"""The benchmark's client: N concurrent streams over aiohttp, the same code for every server."""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from loadtest.errors import Unreachable
from loadtest.sse import DONE, EventReader

SPAN = re.compile(r"([a-z]+);dur=([0-9.]+)")


@dataclass(frozen=True)
class Request:
    """One completion to stream: always `max_tokens` long, so that every arm does the same work."""

    model: str
    prompt: str
    max_tokens: int

    @property
    def body(self) -> bytes:
        return orjson.dumps(
            {
                "model": self.model,
                "prompt": self.prompt,
                "max_tokens": self.max_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )


@dataclass(frozen=True)
class Answer:
    """What one stream took: arrival of each piece with a choice, in seconds after the request was sent."""

    piece_seconds: list[float]
    completion_tokens: int
    headers: Mapping[str, str]

    @property
    def ttft_ms(self) -> float:
        return 1000 * self.piece_seconds[0]

    @property
    def added_ms(self) -> float | None:
        """What the server's Server-Timing header says of itself, without what it waited for its engine."""
        spans = SPAN.findall(self.headers.get("server-timing", ""))
        return sum(float(spent) for name, spent in spans if name != "engine") if spans else None

    @property
    def itl_ms(self) -> Iterator[float]:
        return (1000 * (b - a) for a, b in zip(self.piece_seconds, self.piece_seconds[1:], strict=False))


@dataclass
class Sample:
    """One arm in one round."""

    tokens: int = 0
    seconds: float = 0.0
    ttft_ms: list[float] = field(default_factory=list)
    itl_ms: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


class Endpoint:
    """An OpenAI completions endpoint: TCP, or the engine's Unix socket. Use as an async context manager."""

    def __init__(self, url: str, key: str | None = None, socket: str | None = None) -> None:
        self.url = url
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._socket = socket

    async def __aenter__(self) -> "Endpoint":
        connector: Any = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def stream(self, request: Request, headers: Mapping[str, str] | None = None) -> Answer:
        """Streams one completion. Raises Unreachable for anything but a whole answer: a benchmark has no failures."""
        reader, pieces, usage, done = EventReader(), list[float](), None, False
        sent = time.perf_counter()
        async with self._session.post(
            f"{self.url}/completions", data=request.body, headers={**self._headers, **(headers or {})}
        ) as response:
            if response.status != 200:
                raise Unreachable(f"{self.url}: {response.status} {(await response.text())[:500]}")
            async for received in response.content.iter_any():
                now = time.perf_counter() - sent
                for data in reader.feed(received):
                    done = data == DONE
                    chunk = {} if done else orjson.loads(data)
                    if chunk.get("object") and chunk.get("choices"):  # the engine's own meter has choices, too
                        pieces.append(now)
                    usage = chunk.get("usage") or usage
            if not (done and usage and pieces):
                raise Unreachable(f"{self.url}: the stream broke off")
            return Answer(pieces, usage["completion_tokens"], response.headers.copy())

    async def post(self, path: str, body: Mapping[str, Any], *, at_root: bool = False) -> tuple[int, str]:
        """Any other call, below /v1 or at the server's root; status and text."""
        url = self.url.removesuffix("/v1") if at_root else self.url
        async with self._session.post(f"{url}{path}", data=orjson.dumps(body), headers=self._headers) as response:
            return response.status, await response.text()


async def measure(endpoint: Endpoint, requests: Sequence[Request], streams: int) -> Sample:
    """All requests, `streams` at a time, from the first byte sent to the last received."""
    sample, waiting = Sample(), iter(requests)
    began = time.perf_counter()

    async def work() -> None:
        for request in waiting:
            answer = await endpoint.stream(request)
            sample.tokens += answer.completion_tokens
            sample.ttft_ms.append(answer.ttft_ms)
            sample.itl_ms += answer.itl_ms
            if answer.added_ms is not None:
                sample.added_ms.append(answer.added_ms)

    await asyncio.gather(*(work() for _ in range(streams)))
    sample.seconds = time.perf_counter() - began
    return sample
