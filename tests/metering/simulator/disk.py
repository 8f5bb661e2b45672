"""A disk that forgets, tears and fills up: real files, with every unsynced write remembered so that it can be lost."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

from metering.segment import DiskStorage, SegmentFile
from tests.metering.simulator.clock import Clock
from tests.metering.simulator.database import Crash


class FaultyDisk(DiskStorage):
    """DiskStorage whose unsynced writes are undone, wholly or in part, by `cut_power`."""

    def __init__(self, clock: Clock, dice: random.Random) -> None:
        self._clock = clock
        self._dice = dice
        self.space = "free"  # "low": below min_free_bytes, but what was admitted still fits; "full"
        self.failing_syncs = 0
        self.dies_at_sync = False
        self.open: list[FaultySegment] = []

    def create(self, path: Path, size: int) -> SegmentFile:
        self.require_space()
        segment = FaultySegment(self, path, super().create(path, size))
        self.open.append(segment)
        segment.stamp()
        return segment

    def free_bytes(self, directory: Path) -> int:
        return {"free": 10**12, "low": 1, "full": 0}[self.space]

    def require_space(self) -> None:
        if self.space == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def cut_power(self) -> None:
        """Of what was not synced, some writes reached the device, some in part, some not at all."""
        for segment in self.open:
            segment.lose(self._dice)
        self.open.clear()

    @property
    def now_us(self) -> int:
        return self._clock.now_us()


class FaultySegment:
    def __init__(self, disk: FaultyDisk, path: Path, inner: SegmentFile) -> None:
        self._disk = disk
        self._path = path
        self._inner = inner
        self._unsynced: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: bytes) -> None:
        self._disk.require_space()
        self._unsynced.append((offset, data))
        self._inner.write(offset, data)
        self.stamp()

    def sync(self) -> None:
        if self._disk.dies_at_sync:
            self._disk.dies_at_sync = False
            raise Crash  # between the write and its fdatasync
        if self._disk.failing_syncs:
            self._disk.failing_syncs -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._inner.sync()
        self._unsynced.clear()

    def close(self) -> None:
        self._inner.close()

    def stamp(self) -> None:
        """The file's time is the virtual one."""
        os.utime(self._path, ns=(self._disk.now_us * 1000,) * 2)

    def lose(self, dice: random.Random) -> None:
        if not self._unsynced or not self._path.exists():
            return
        with self._path.open("r+b") as file:
            for offset, data in self._unsynced:
                kept = dice.choice((0, len(data), dice.randrange(len(data) + 1)))
                file.seek(offset + kept)
                file.write(bytes(len(data) - kept))
        self._unsynced.clear()
        self.stamp()
