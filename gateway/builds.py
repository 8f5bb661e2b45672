"""Building compositions beside the event loop: once per combination, one at a time on the machine."""

import asyncio
import fcntl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adapters.compositions import Compositions
from adapters.registry import RegisteredAdapter
from gateway.errors import CompositionPending
from gateway.publication import Publication

WAITING_MAX = 8
RETRY_SECONDS = 5.0


class Builds:
    """The builds of one worker; `lock` is the file by which the workers of a machine take turns."""

    def __init__(self, compositions: Compositions, publication: Publication, lock: Path, wait_seconds: float) -> None:
        self._compositions = compositions
        self._publication = publication
        self._lock = lock
        self._wait_seconds = wait_seconds
        self._running: dict[str, asyncio.Task[RegisteredAdapter]] = {}
        self._thread = ThreadPoolExecutor(1, "compose")

    async def build(self, parts: Mapping[str, int]) -> RegisteredAdapter:
        """The composition of `parts` (`Compositions.build`), which goes on when its client does not wait for it.

        Raises CompositionPending when it takes longer than a request waits, or too many others come first.
        """
        key = repr(parts)
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= WAITING_MAX:
                raise CompositionPending(f"{WAITING_MAX} compositions are being made first.")
            task = self._running[key] = asyncio.create_task(self._start(parts))
            task.add_done_callback(lambda done: self._ended(key, done))
        await asyncio.wait({task}, timeout=self._wait_seconds)
        if not task.done():
            raise CompositionPending("These adapters are being composed.", retry_after_seconds=RETRY_SECONDS)
        return task.result()

    async def _start(self, parts: Mapping[str, int]) -> RegisteredAdapter:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._build, parts)

    def _build(self, parts: Mapping[str, int]) -> RegisteredAdapter:
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            built = self._compositions.build(parts)
        self._publication.publish()
        return built

    def _ended(self, key: str, task: asyncio.Task[RegisteredAdapter]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen, also where nobody waited for it

    def close(self) -> None:
        """Waits for the build in progress; those that wait are dropped."""
        self._thread.shutdown(cancel_futures=True)
