"""Which adapters are in host memory, and which requests may rely on it. Lives in the API process, without tensors.

    disk ──load (worker's loader thread)──▶ host ──activation (a memory copy in the engine's step)──▶ slot

A request is handed to the engine only when its adapter is in host memory, and holds a *lease* on it until its answer
has ended. What can fail (a package that is gone, does not fit, or does not fit into memory) fails before the engine
has heard of the request, while resident adapters go on generating. Adapters without lease or pin leave in LRU order.
"""

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.engine.errors import AdapterLoadFailed, AdapterMemoryFull, AdapterUnknown, EngineError

WAIT_SECONDS = 30.0


class Loader(Protocol):
    """The worker's side. `load` gives the bytes taken in host memory, and raises EngineError."""

    async def load(self, adapter_id: int, digest: str, path: Path) -> int: ...

    async def drop(self, adapter_id: int) -> None: ...


@dataclass
class Entry:
    """One adapter this engine has loaded at least once, or is loading. Its id is never given to another adapter."""

    digest: str
    adapter_id: int
    path: Path
    bytes: int = 0
    leases: int = 0
    pinned: bool = False
    hits: int = 0
    loads: int = 0
    last_load_ms: float = 0.0
    resident: bool = False
    loading: asyncio.Task[None] | None = None


class Residency:
    """Host memory as leases on adapters, at most `limit_bytes` (what the slots hold comes on top)."""

    def __init__(self, adapters: Path, loader: Loader, limit_bytes: int, wait_seconds: float = WAIT_SECONDS):
        self._adapters = adapters
        self._loader = loader
        self._limit = limit_bytes
        self._wait_seconds = wait_seconds
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._ids = itertools.count(1)
        self._one_load = asyncio.Lock()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def lease(self, digest: str) -> AsyncIterator[Entry]:
        """The adapter stays in host memory within the block. Raises EngineError when it cannot be brought there."""
        entry = await self._acquire(digest)
        try:
            yield entry
        finally:
            self._release(entry)

    async def pin(self, digest: str) -> Entry:
        """Loads an adapter if need be, and keeps it until `unpin`. Raises EngineError."""
        async with self.lease(digest) as entry:
            entry.pinned = True
            return entry

    def unpin(self, digest: str) -> None:
        """Lets a pinned adapter leave again."""
        if digest in self._entries:
            self._entries[digest].pinned = False
            self._released.set()

    async def evict(self, digest: str) -> bool:
        """Forgets an adapter as if it had never been loaded; False when it is pinned or in use.

        Its next request gives it a new id, so that what a slot still holds of it is not taken for it.
        """
        async with self._one_load:
            entry = self._entries.get(digest)
            if entry is None:
                return True
            if entry.leases or entry.pinned:
                return False
            del self._entries[digest]
            if entry.resident:
                await self._loader.drop(entry.adapter_id)
            return True

    @property
    def host_bytes(self) -> int:
        """What adapters and heads take in host memory."""
        return sum(entry.bytes for entry in self._entries.values() if entry.resident)

    def report(self, in_slots: set[int]) -> dict[str, Any]:
        """Every adapter this engine has seen, most recently used last, and the memory they take together."""
        return {
            "host_bytes": self.host_bytes,
            "host_limit_bytes": self._limit,
            "adapters": [self._describe(entry, in_slots) for entry in self._entries.values()],
        }

    @staticmethod
    def _describe(entry: Entry, in_slots: set[int]) -> dict[str, Any]:
        place = "slot" if entry.adapter_id in in_slots else "host"
        if not entry.resident:
            place = "loading" if entry.loading else "disk"
        return {
            "digest": entry.digest,
            "place": place,
            "pinned": entry.pinned,
            "leases": entry.leases,
            "bytes": entry.bytes if entry.resident else 0,
            "hits": entry.hits,
            "loads": entry.loads,
            "last_load_ms": round(entry.last_load_ms, 3),
        }

    async def _acquire(self, digest: str) -> Entry:
        entry = self._entries.get(digest) or self._new(digest)
        entry.leases += 1
        try:
            if entry.resident:
                entry.hits += 1
            else:
                entry.loading = entry.loading or asyncio.create_task(self._load(entry))
                await asyncio.shield(entry.loading)  # a client that goes away does not end a load others wait for
        except BaseException:
            self._release(entry)
            raise
        self._entries.move_to_end(digest)
        return entry

    def _release(self, entry: Entry) -> None:
        entry.leases -= 1
        if not entry.leases:
            self._released.set()

    def _new(self, digest: str) -> Entry:
        path = self._adapters / digest
        if not path.is_dir():
            raise AdapterUnknown(f"adapter {digest} does not exist")
        return self._entries.setdefault(digest, Entry(digest, next(self._ids), path))

    async def _load(self, entry: Entry) -> None:
        started = time.perf_counter()
        try:
            async with self._one_load:
                await self._make_room(entry, _file_bytes(entry))
                entry.bytes = await self._loader.load(entry.adapter_id, entry.digest, entry.path)
                entry.resident = True
                entry.loads += 1
                entry.last_load_ms = (time.perf_counter() - started) * 1000
                while self.host_bytes > self._limit and await self._drop_idle():
                    pass  # it takes more than its files: a head's rows are rounded up
        except OSError as error:
            raise AdapterLoadFailed(f"adapter {entry.digest}: {error}") from error
        finally:
            entry.loading = None

    async def _make_room(self, entry: Entry, needed: int) -> None:
        """Drops idle adapters until `needed` bytes fit; waits for leases to end when there is none to drop."""
        deadline = time.monotonic() + self._wait_seconds
        while self.host_bytes + needed > self._limit:
            if await self._drop_idle():
                continue
            self._released.clear()
            left = deadline - time.monotonic()
            try:
                if needed > self._limit or left <= 0:
                    raise TimeoutError
                await asyncio.wait_for(self._released.wait(), left)
            except TimeoutError:
                taken = f"{self.host_bytes} of {self._limit} bytes are in use"
                raise AdapterMemoryFull(f"adapter {entry.digest} needs {needed} bytes; {taken}") from None

    async def _drop_idle(self) -> bool:
        """Frees the least recently used adapter that nobody needs; False when there is none."""
        idle = next((e for e in self._entries.values() if e.resident and not e.leases and not e.pinned), None)
        if idle is None:
            return False
        idle.resident = False
        await self._loader.drop(idle.adapter_id)
        return True


def _file_bytes(entry: Entry) -> int:
    """Bytes of a package's tensors on disk, which is about what they take in memory. Raises EngineError."""
    try:
        return sum(file.stat().st_size for file in entry.path.glob("*.safetensors"))
    except FileNotFoundError:
        raise _gone(entry) from None
    finally:
        if not entry.path.is_dir():
            raise _gone(entry)


def _gone(entry: Entry) -> EngineError:
    return AdapterUnknown(f"adapter {entry.digest} is no longer on disk")
