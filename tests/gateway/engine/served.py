"""A real engine for tests, asked over its Unix socket, and the comparison of what it served with a recomputation."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import torch

ROOT = Path(__file__).parents[3]
START_SECONDS = 300.0
TOLERANCE = 1e-4  # of the request's largest score
ROUNDING_NATS = 1.5e-6
HEADER = "x-openledger-request"
TOKENS = {"x-openledger-tokens": "1"}


@dataclass(frozen=True)
class Engine:
    """An engine process that answers."""

    data: Path
    process: subprocess.Popen

    def client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.data / "engine" / "engine.sock"))
        return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=300)

    def get(self, path: str) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.data / "engine" / "engine.sock"))) as http:
            return http.get(f"http://engine{path}", timeout=60)

    def residency(self) -> dict[str, dict[str, Any]]:
        """Where each adapter is, by digest."""
        return {one["digest"]: one for one in self.get("/openledger/engine").json()["residency"]["adapters"]}

    def metric(self, name: str) -> float:
        """The sum of one of vLLM's counters."""
        lines = [line for line in self.get("/metrics").text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@contextmanager
def running_engine(
    data: Path, base: Path, *options: str, environment: dict[str, str] | None = None
) -> Iterator[Engine]:
    """The launcher as a process of its own until the block ends. Fails with the log when it does not come up."""
    command = [sys.executable, "-m", "gateway.engine.launcher", "--data", str(data), "--model", str(base), *options]
    log = data.parent / f"{data.name}.engine.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, **(environment or {})})
    engine = Engine(data, process)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _healthy(engine):
            starting = process.poll() is None and time.monotonic() < deadline
            assert starting, log.read_text()[-4000:]
            time.sleep(0.3)
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _healthy(engine: Engine) -> bool:
    try:
        return engine.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class Answer:
    """One request's answer: HTTP status, JSON (the chunks of a stream joined into `chunks`), and its METER."""

    status: int
    body: dict[str, Any]
    package: Path | None = None
    chunks: list[dict[str, Any]] = field(default_factory=list)
    meter: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt_ids(self) -> list[list[int]]:
        """The tokens of each prompt."""
        found = [one["prompt_token_ids"] for one in [self.body, *self.chunks] if one.get("prompt_token_ids")]
        if found:
            return found[:1]
        choices = {
            c["index"]: c["prompt_token_ids"]
            for one in [self.body, *self.chunks]
            for c in one.get("choices", [])
            if c.get("prompt_token_ids")
        }
        return [choices[i] for i in sorted(choices)]

    def rows(self) -> list[tuple[list[int], list[int], torch.Tensor]]:
        """(prompt, tokens, served scores in nats [tokens, contributors]) of every choice."""
        found = []
        choices = self.meter["choices"]
        prompts = self.prompt_ids
        for choice in choices:
            prompt = prompts[choice["index"] * len(prompts) // len(choices)]
            found.append((prompt, choice["token_ids"], torch.tensor(choice["scores"]).double() / 1e6))
        return found


def request_id() -> str:
    return f"req_{uuid.uuid4().hex}"


async def ask(
    http: httpx.AsyncClient, model: str, prompt: str | list[str], *, package: Path | None = None, **body: Any
) -> Answer:
    """A request without stream: a chat, or a completion of a list of prompts."""
    path, content = _request(model, prompt, body)
    response = await http.post(path, json=content, headers={HEADER: request_id()} | TOKENS)
    parsed = response.json()
    return Answer(response.status_code, parsed, package, meter=parsed.pop("openledger", {}))


async def stream(
    http: httpx.AsyncClient,
    model: str,
    prompt: str | list[str],
    *,
    package: Path | None = None,
    abort_after: int | None = None,
    **body: Any,
) -> Answer:
    """A streamed request; `abort_after` that many deltas it asks the engine to stop it."""
    path, content = _request(model, prompt, body | {"stream": True})
    own = request_id()
    async with http.stream("POST", path, json=content, headers={HEADER: own} | TOKENS) as response:
        answer = Answer(response.status_code, {}, package)
        seen = 0
        async for event, data in _events(response):
            if event == "openledger":
                answer.meter = joined(answer.meter, data)
                seen += 1
                if seen == abort_after:
                    await http.post(f"/openledger/abort/{own}")
            else:
                answer.chunks.append(data)
    return answer


def _request(model: str, prompt: str | list[str], body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    common = {"model": model, "temperature": 0, "max_tokens": 16, "return_token_ids": True} | body
    if isinstance(prompt, list):
        return "/v1/completions", common | {"prompt": prompt}
    return "/v1/chat/completions", common | {"messages": [{"role": "user", "content": prompt}]}


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    event = "message"
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: ") and line != "data: [DONE]":
            yield event, orjson.loads(line.removeprefix("data: "))
            event = "message"


def joined(meter: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """A METER with the per-token arrays of all deltas so far."""
    choices = {choice["index"]: choice for choice in meter.get("choices", [])}
    for new in delta["choices"]:
        old = choices.get(new["index"])
        if old:
            new = new | {key: old[key] + new[key] for key in ("token_ids", "tokens")}
            new["scores"] = None if new["scores"] is None else old["scores"] + new["scores"]
        choices[new["index"]] = new
    return meter | delta | {"choices": [choices[index] for index in sorted(choices)]}


def agree(served: torch.Tensor, recomputed: torch.Tensor) -> bool:
    """Whether every score is within TOLERANCE of the request's largest, and the rounding of its fixed point."""
    if served.shape != recomputed.shape:
        return False
    allowed = TOLERANCE * recomputed.abs().max() + ROUNDING_NATS
    return bool(((served - recomputed).abs() <= allowed).all())


async def together(*requests: Any) -> list[Answer]:
    """All requests at once, in the engine's batches."""
    return list(await asyncio.gather(*requests))
