"""Who may rely on an adapter in host memory, against a loader that only counts."""

import asyncio
from pathlib import Path

import pytest

from gateway.engine.errors import AdapterInvalid, AdapterMemoryFull, AdapterUnknown
from gateway.engine.residency import Residency

SIZE = 100


class Loader:
    """Loads after `gate`, fails for the digests in `broken`, and remembers what it holds."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, adapter_id: int, digest: str, path: Path) -> int:
        await self.gate.wait()
        self.loads.append(digest)
        if digest in self.broken:
            raise AdapterInvalid(digest)
        self.held.add(adapter_id)
        return SIZE

    async def drop(self, adapter_id: int) -> None:
        self.held.discard(adapter_id)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name in "abcdef":
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"x" * SIZE)
    return tmp_path


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def residency(packages: Path, loader: Loader) -> Residency:
    """Room for three adapters."""
    return Residency(packages, loader, 3 * SIZE, wait_seconds=0.05)


async def visit(residency: Residency, digest: str) -> None:
    async with residency.lease(digest):
        pass


def places(residency: Residency) -> dict[str, str]:
    return {one["digest"]: one["place"] for one in residency.report(set())["adapters"]}


async def test_one_load_serves_everyone_who_waits_for_it(residency: Residency, loader: Loader) -> None:
    """Twenty requests for a cold adapter read the disk once."""
    await asyncio.gather(*(visit(residency, "a") for _ in range(20)))
    assert loader.loads == ["a"]


async def test_the_least_recently_used_adapter_leaves_first(residency: Residency, loader: Loader) -> None:
    """Memory never holds more than fits, and a used adapter outlives an unused one."""
    for digest in "abcad":
        await visit(residency, digest)
        assert residency.host_bytes <= 3 * SIZE
    assert places(residency) == {"b": "disk", "c": "host", "a": "host", "d": "host"}
    assert len(loader.held) == 3


async def test_a_leased_or_pinned_adapter_stays(residency: Residency) -> None:
    """LRU passes over what a request uses and what an operator pinned."""
    await residency.pin("a")
    async with residency.lease("b"):
        for digest in "cde":
            await visit(residency, digest)
        assert {"a", "b"} <= {digest for digest, place in places(residency).items() if place == "host"}
    residency.unpin("a")
    for digest in "cdef":
        await visit(residency, digest)
    assert places(residency)["a"] == "disk"


async def test_when_everything_is_in_use_a_newcomer_waits_and_is_told(residency: Residency) -> None:
    """It gets in when a request ends in time; otherwise its own request fails, and only that one."""
    async with residency.lease("a"), residency.lease("b"):
        async with residency.lease("c"):
            with pytest.raises(AdapterMemoryFull):
                await visit(residency, "d")
            waiting = asyncio.create_task(visit(residency, "d"))
            await asyncio.sleep(0.01)
        await waiting
    assert places(residency)["d"] == "host"


async def test_a_failed_load_is_forgotten(residency: Residency, loader: Loader, packages: Path) -> None:
    """Every waiter gets the named error, the next request tries again, others are not touched."""
    loader.broken = {"a"}
    results = await asyncio.gather(
        visit(residency, "a"), visit(residency, "a"), visit(residency, "b"), return_exceptions=True
    )
    assert [type(r) for r in results] == [AdapterInvalid, AdapterInvalid, type(None)]
    loader.broken = set()
    await visit(residency, "a")
    assert places(residency)["a"] == "host"


async def test_a_package_that_vanished(residency: Residency, packages: Path) -> None:
    """Unknown before, deleted while it waits, deleted while it is resident: only the first two fail."""
    with pytest.raises(AdapterUnknown):
        await visit(residency, "z")
    await visit(residency, "a")
    for name in "ab":
        (packages / name / "adapter_model.safetensors").unlink()
        (packages / name).rmdir()
    await visit(residency, "a")
    with pytest.raises(AdapterUnknown):
        await visit(residency, "b")


async def test_a_client_that_goes_away_does_not_end_the_load_of_others(residency: Residency, loader: Loader) -> None:
    """The load goes on, no lease is left behind, and the adapter can leave again."""
    loader.gate.clear()
    leaver, stayer = (asyncio.create_task(visit(residency, "a")) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.sleep(0)
    loader.gate.set()
    await stayer
    assert residency.report(set())["adapters"][0]["leases"] == 0
    assert loader.loads == ["a"]


async def test_resident_adapters_do_not_wait_for_a_cold_one(residency: Residency, loader: Loader) -> None:
    """A hit takes no turn at the loader."""
    await visit(residency, "a")
    loader.gate.clear()
    cold = asyncio.create_task(visit(residency, "b"))
    await asyncio.sleep(0)
    await asyncio.wait_for(visit(residency, "a"), 0.01)
    loader.gate.set()
    await cold


async def test_an_evicted_adapter_is_read_again_under_a_new_id(residency: Residency, loader: Loader) -> None:
    """Not while it is used or pinned; what a slot holds under its old id is never taken for it."""
    async with residency.lease("a") as first:
        assert not await residency.evict("a")
    await residency.pin("b")
    assert not await residency.evict("b")
    assert await residency.evict("never seen")
    assert await residency.evict("a")
    assert loader.held == {2}
    async with residency.lease("a") as again:
        assert again.adapter_id not in (first.adapter_id, 2)
    assert loader.loads == ["a", "b", "a"]
