"""Builds beside the event loop: one per combination, however many ask; a deadline and a queue with an end."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.builds import WAITING_MAX, Builds
from gateway.errors import CompositionPending

PARTS = {"sha256:a": 1, "sha256:b": 2}


class Slow:
    """Compositions that take until a test lets them; `asked` lists what was built."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[dict[str, int]] = []

    def build(self, parts: dict[str, int]) -> str:
        self.asked.append(parts)
        assert self.go.wait(30)
        if 13 in parts.values():
            raise ValueError(13)
        return f"made of {parts}"


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
async def builds(slow, tmp_path: Path):
    made = Builds(slow, SimpleNamespace(publish=lambda: 0), tmp_path / "lock", 30.0)  # type: ignore[arg-type]
    yield made
    slow.go.set()
    made.close()


async def test_a_combination_is_built_once_for_all_who_ask(builds, slow) -> None:
    """Twenty requests, one build, one answer; the loop went on meanwhile."""
    waiting = [asyncio.create_task(builds.build(PARTS)) for _ in range(20)]
    await asyncio.sleep(0.05)
    slow.go.set()
    assert set(await asyncio.gather(*waiting)) == {f"made of {PARTS}"}
    assert slow.asked == [PARTS]


async def test_a_request_waits_so_long_and_the_build_goes_on(builds, slow) -> None:
    """503 with retry-after, for this one; the retry gets what was built meanwhile."""
    builds._wait_seconds = 0.01
    with pytest.raises(CompositionPending) as caught:
        await builds.build(PARTS)
    assert caught.value.headers()["retry-after"] == "5"
    slow.go.set()
    builds._wait_seconds = 30.0
    assert await builds.build(PARTS) == f"made of {PARTS}"
    assert slow.asked == [PARTS]


async def test_the_queue_has_an_end(builds, slow) -> None:
    """Whoever comes after WAITING_MAX other combinations is told to come again, but not who waits for one of them."""
    waiting = [asyncio.create_task(builds.build({"sha256:a": n, "sha256:b": 1})) for n in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(CompositionPending):
        await builds.build({"sha256:a": 99, "sha256:b": 1})
    waiting.append(asyncio.create_task(builds.build({"sha256:a": 0, "sha256:b": 1})))
    slow.go.set()
    await asyncio.gather(*waiting)
    assert len(slow.asked) == WAITING_MAX


async def test_a_failed_build_fails_its_requests_and_is_tried_again(builds, slow) -> None:
    """All who waited get the error; the next request starts over."""
    slow.go.set()
    failing = {"sha256:a": 13, "sha256:b": 1}
    for _ in range(2):
        results = await asyncio.gather(*(builds.build(failing) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in results] == [ValueError] * 3
    assert slow.asked == [failing] * 2
