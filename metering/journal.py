"""The durable journal of usage events: the writing side (docs/formats/journal.md)."""

from __future__ import annotations

from concurrent.futures import Future

from metering.config import MeteringConfig


class JournalWriter:
    """Appends records to segments that this writer alone owns; one thread syncs all that is waiting in one go.

    Any number of writers, in any number of processes, may share a journal directory.
    """

    def __init__(self, config: MeteringConfig, writer_id: str) -> None:
        """Open a first segment. `writer_id` ([a-z0-9-]{1,32}) is a label; JournalUnavailable when none can be created."""
        raise NotImplementedError

    def append(self, record: bytes) -> Future[None]:
        """Queue one record; the future resolves after fdatasync covered it.

        The future fails with JournalUnavailable when it did not become durable (disk full, I/O error, closed).
        Raises JournalUnavailable at once when the backlog is full, RecordTooLarge when it can never fit.
        """
        raise NotImplementedError

    async def append_async(self, record: bytes) -> None:
        """`append`, awaited in the running event loop."""
        raise NotImplementedError

    def can_accept(self) -> bool:
        """False when admission must stop: the journal is broken, its backlog is full or the disk is nearly full."""
        raise NotImplementedError

    def close(self) -> None:
        """Sync what waits, seal the segment and stop the thread."""
        raise NotImplementedError
