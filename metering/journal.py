"""The durable journal of usage events: the writing side (docs/formats/journal.md)."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from concurrent.futures import Future
from typing import NamedTuple

from metering.config import MeteringConfig
from metering.errors import JournalUnavailable, RecordTooLarge
from metering.segment import (
    HEADER_BYTES,
    RECORD,
    SEAL,
    SUFFIX,
    DiskStorage,
    SegmentFile,
    Storage,
    encode_frame,
    encode_header,
    frame_bytes,
)

WRITER_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
RETRY_SECONDS = 1.0


class Waiting(NamedTuple):
    """A record that is not durable yet, the bytes it will take, and who waits for it."""

    record: bytes
    size: int
    future: Future[None]


class JournalWriter:
    """Appends records to segments that this writer alone owns; one thread syncs all that is waiting in one go.

    Any number of writers, in any number of processes, may share a journal directory: each has files of its own.
    A segment is never reopened: after an I/O error or a restart writing goes on in a new one.
    """

    def __init__(self, config: MeteringConfig, writer_id: str, storage: Storage | None = None) -> None:
        """Open a first segment; JournalUnavailable when none can be made. `writer_id` ([a-z0-9-]{1,32}) is a label."""
        if not WRITER_ID.match(writer_id):
            raise ValueError(f"writer_id {writer_id!r} does not match {WRITER_ID.pattern}")
        self._config = config
        self._writer_id = writer_id
        self._storage = storage or DiskStorage()
        self._wake = threading.Condition()
        self._queue: list[Waiting] = []
        self._queue_bytes = 0
        self._closing = False
        self._segment: SegmentFile | None = None
        self._offset = 0
        self._failed_at: float | None = None
        config.journal_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._open_segment()
        except OSError as error:
            raise JournalUnavailable(f"cannot create a segment: {error}") from error
        self._thread = threading.Thread(target=self._run, name=f"journal-{writer_id}", daemon=True)
        self._thread.start()

    def append(self, record: bytes) -> Future[None]:
        """Queue one record; the future resolves after fdatasync covered it.

        The future fails with JournalUnavailable when it did not become durable (disk full, I/O error, closed).
        Raises JournalUnavailable at once when the backlog is full, RecordTooLarge when it can never fit.
        """
        size = frame_bytes(len(record))
        if HEADER_BYTES + size + frame_bytes(0) > self._config.segment_bytes:
            raise RecordTooLarge(f"{len(record)} bytes do not fit a segment of {self._config.segment_bytes}")
        future: Future[None] = Future()
        with self._wake:
            if self._closing:
                raise JournalUnavailable("the journal is closed")
            if self._queue_bytes + size > self._config.backlog_bytes:
                raise JournalUnavailable(f"{self._queue_bytes} bytes are waiting to become durable")
            self._queue.append(Waiting(record, size, future))
            self._queue_bytes += size
            if len(self._queue) == 1:  # else the writer is awake, or has been woken
                self._wake.notify()
        return future

    async def append_async(self, record: bytes) -> None:
        """`append`, awaited in the running event loop."""
        await asyncio.wrap_future(self.append(record))

    def can_accept(self) -> bool:
        """False when admission must stop: the journal broke, half its backlog is used or the disk is nearly full."""
        with self._wake:
            broken = self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_SECONDS
            if self._closing or broken or 2 * self._queue_bytes > self._config.backlog_bytes:
                return False
        try:
            return self._storage.free_bytes(self._config.journal_dir) >= self._config.min_free_bytes
        except OSError:
            return False

    def close(self) -> None:
        """Sync what waits, seal the segment and stop the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
            if not self._commit_waiting():
                break
        self._abandon(seal=True)

    def _commit_waiting(self) -> bool:
        """One turn of the writer: make what waits durable; False when nothing waited."""
        with self._wake:
            batch, self._queue = self._queue, []
        if batch:
            self._commit(batch)
            with self._wake:
                self._queue_bytes -= sum(waiting.size for waiting in batch)
        return bool(batch)

    def _commit(self, batch: list[Waiting]) -> None:
        """Make the batch durable, rotating as segments fill, and resolve its futures."""
        while batch:
            try:
                count = self._commit_some(batch)
            except OSError as error:
                self._failed_at = time.monotonic()
                self._abandon(seal=False)
                for _, _, future in batch:
                    future.set_exception(JournalUnavailable(f"not durable: {error}"))
                return
            self._failed_at = None
            for _, _, future in batch[:count]:
                future.set_result(None)
            batch = batch[count:]

    def _commit_some(self, batch: list[Waiting]) -> int:
        """Write and sync as many records as the segment takes; their number."""
        if self._segment is None:
            self._open_segment()
        limit = self._config.segment_bytes - frame_bytes(0)  # room for the seal
        frames, offset = [], self._offset
        for record, size, _ in batch:
            if offset + size > limit:
                break
            frames.append(encode_frame(RECORD, record, offset, self._offset))
            offset += size
        if not frames:
            self._abandon(seal=True)
            return 0
        assert self._segment is not None
        self._segment.write(self._offset, b"".join(frames))
        self._segment.sync()
        self._offset = offset
        return len(frames)

    def _open_segment(self) -> None:
        name = f"{time.time_ns():016x}-{self._writer_id}-{os.urandom(4).hex()}{SUFFIX}"
        segment = self._storage.create(self._config.journal_dir / name, self._config.segment_bytes)
        try:
            segment.write(0, encode_header(name, self._config.segment_bytes))
        except OSError:
            segment.close()
            raise
        self._segment, self._offset = segment, HEADER_BYTES

    def _abandon(self, *, seal: bool) -> None:
        """Let go of the segment; a sealed one tells readers that nothing will follow."""
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            if seal:
                segment.write(self._offset, encode_frame(SEAL, b"", self._offset, self._offset))
                segment.sync()
        except OSError:
            self._failed_at = time.monotonic()
        finally:
            segment.close()
