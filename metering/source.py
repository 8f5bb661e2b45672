"""Where a settler's events come from: the journal on its disk (the default), or a bus that several settlers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from metering.config import MeteringConfig
from metering.store import Connection, Store


class SourceRecord(NamedTuple):
    """The bytes of one record, and what its source needs to know it again."""

    payload: bytes
    position: Any


class EventSource(Protocol):
    """Hands out records at least once, in any order; what counts once is decided by the ledger.

    The settler reads, settles in a transaction in which `store_position` takes part, and acknowledges after its
    commit. What was read and not acknowledged comes again, here or to another settler.
    """

    def read(self, limit: int) -> Sequence[SourceRecord]:
        """At most `limit` records, soon; none when there are none, or when the source cannot be reached."""
        ...

    def read_ahead(self, limit: int, beyond: Sequence[SourceRecord]) -> Sequence[SourceRecord]:
        """What `read` will return once all of `beyond`, just read, is acknowledged: so that it can be decoded before.

        Whoever fails to settle `beyond` forgets these. Never waits; may give none.
        """
        ...

    def store_position(self, connection: Connection, records: Sequence[SourceRecord]) -> None:
        """Note in the transaction that settles the records that they need not come again."""
        ...

    def acknowledge(self, records: Sequence[SourceRecord]) -> None:
        """The transaction that settled the records is durable."""
        ...

    def tidy(self) -> None:
        """Housekeeping, every few seconds."""
        ...

    def problems(self) -> list[str]:
        """What is wrong now, in words; the same words while it lasts."""
        ...

    def close(self) -> None: ...


def open_source(config: MeteringConfig, store: Store) -> EventSource:
    """The source that the settings name. EventsUnavailable or EventsMisconfigured when that is a bus that won't do."""
    if config.events_url:
        from metering.source_nats import NatsSource  # the client is loaded only by those who use it

        return NatsSource(config)
    from metering.source_journal import JournalSource

    return JournalSource(config, store)
