"""Time to the first token when nothing else runs: what the gateway adds to it, and what a cold adapter adds."""

import asyncio
import os
import random
import statistics
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtest.bench.driver import Endpoint, Request
from loadtest.errors import Unreachable
from loadtest.prompts import prompt
from loadtest.stats import Interval, median, median_difference, summary

WORDS = 24
WARM_REPEATS = 3
EVICT_TRIES = 20


@dataclass(frozen=True)
class AddedLatency:
    """What the gateway adds to one request, in ms: by its own spans, and as seen from outside.

    `added_ms` is the median of the gateway's spans before the first byte, `difference_ms` that of TTFT through the
    gateway minus TTFT at the engine's own socket.
    """

    added_ms: Interval
    difference_ms: Interval
    gateway_ttft_ms: dict[str, Any]
    engine_ttft_ms: dict[str, Any]
    spans_ms: dict[str, Any]

    def json(self) -> dict[str, Any]:
        return asdict(self)


async def added_latency(gateway: Endpoint, engine: Endpoint, model: str, probes: int) -> AddedLatency:
    """`probes` alternating pairs of single requests to the base model, each with a prompt of its own.

    The requests that go straight to the engine are in its tally and in no journal: after this, the check finds them.
    """
    rng = random.Random(0)
    through, straight, spans = list[float](), list[float](), list[float]()
    for number in range(-2, probes):
        pair: dict[bool, float] = {}
        for via_gateway in (True, False) if number % 2 else (False, True):
            request = Request(model, prompt(rng, WORDS), 2)
            answer = await (gateway.stream(request) if via_gateway else engine.stream(request, _metered()))
            pair[via_gateway] = answer.ttft_ms
            if via_gateway and number >= 0:
                assert answer.added_ms is not None, "the gateway times itself"
                spans.append(answer.added_ms)
        if number >= 0:  # the first pairs warm up
            through.append(pair[True])
            straight.append(pair[False])
    difference = median_difference(through, straight)
    return AddedLatency(median(spans), difference, summary(through), summary(straight), summary(spans))


def _metered() -> dict[str, str]:
    """The engine generates no token without a request id."""
    return {"x-openledger-request": f"req_{uuid.uuid4().hex}"}


async def cold_first_token(
    gateway: Endpoint, engine: Endpoint, name: str, package: Path, repeats: int
) -> dict[str, Any]:
    """An adapter on disk, unknown to the engine and to the page cache, to its first token; and the same adapter warm.

    The engine is told to evict it, and so reads it again at its next request.
    `bound_ms` = 2 x warm TTFT + time to read its files: what the target compares with.
    """
    rng, cold, warm, read = random.Random(name), list[float](), list[float](), list[float]()
    for _ in range(repeats):
        await _evict(engine, package.name)
        drop_from_page_cache(package)
        read.append(read_ms(package))
        drop_from_page_cache(package)
        cold.append((await gateway.stream(Request(name, prompt(rng, WORDS), 2))).ttft_ms)
        again = [(await gateway.stream(Request(name, prompt(rng, WORDS), 2))).ttft_ms for _ in range(WARM_REPEATS)]
        warm.append(statistics.median(again))
    bounds = [2 * w + r for w, r in zip(warm, read, strict=True)]
    return {
        "bytes": sum(path.stat().st_size for path in package.iterdir()),
        "read_ms": summary(read),
        "warm_ttft_ms": summary(warm),
        "cold_ttft_ms": summary(cold),
        "bound_ms": summary(bounds),
        "cold_minus_bound_ms": median_difference(cold, bounds).json(),
    }


async def _evict(engine: Endpoint, digest: str) -> None:
    """Makes an adapter cold: tried again for a moment, since the last answer's end frees it. Raises Unreachable."""
    for _ in range(EVICT_TRIES):
        status, text = await engine.post(f"/openledger/adapters/{digest}/evict", {}, at_root=True)
        if status != 200:
            break
        if orjson.loads(text)["evicted"]:
            return
        await asyncio.sleep(0.05)
    raise Unreachable(f"the engine did not evict {digest}, so it would not be cold: {status} {text}")


def drop_from_page_cache(package: Path) -> None:
    """Asks the kernel to forget the pages of every file of a package."""
    for path in package.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # a dirty page is not dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_ms(package: Path) -> float:
    """Time to read every file of a package, in ms."""
    began = time.perf_counter()
    for path in package.iterdir():
        path.read_bytes()
    return 1000 * (time.perf_counter() - began)
