"""The embedded source of events: one settler tails the journal, its cursors are kept in the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from metering.config import MeteringConfig
from metering.errors import JournalCorrupt
from metering.journal_reader import JournalReader
from metering.source import SourceRecord
from metering.store import Connection, Store


class JournalSource:
    """Reads $DATA/journal behind the cursors of `journal_cursors`."""

    def __init__(self, config: MeteringConfig, store: Store) -> None:
        self._store = store
        self._retention_seconds = config.journal_retention_seconds
        self._reader = JournalReader(config.journal_dir)
        self._damaged: list[JournalCorrupt] = []
        with store.read() as connection:
            self._cursors: dict[str, int] = dict(connection.execute("SELECT segment, next_offset FROM journal_cursors"))

    def read(self, limit: int) -> list[SourceRecord]:
        return self._reader.read(self._cursors, limit)

    def read_ahead(self, limit: int, beyond: Sequence[SourceRecord]) -> list[SourceRecord]:
        return self._reader.read(self._cursors, limit, dict(record.position for record in beyond))

    def store_position(self, connection: Connection, records: Sequence[SourceRecord]) -> None:
        connection.executemany(
            "INSERT INTO journal_cursors (segment, next_offset) VALUES (?, ?)"
            " ON CONFLICT (segment) DO UPDATE SET next_offset = excluded.next_offset",
            dict(record.position for record in records).items(),
        )

    def acknowledge(self, records: Sequence[SourceRecord]) -> None:
        self._cursors.update(record.position for record in records)

    def tidy(self) -> None:
        """Seal what dead writers left; remove settled segments after their retention."""
        self._damaged = self._reader.seal_orphans()
        removed = self._reader.remove_settled(self._cursors, self._retention_seconds)
        if removed:
            with self._store.write() as connection:
                connection.executemany("DELETE FROM journal_cursors WHERE segment = ?", [(name,) for name in removed])
            for name in removed:
                self._cursors.pop(name, None)

    def problems(self) -> list[str]:
        return [f"journal damaged: {damage}" for damage in self._damaged]

    def close(self) -> None: ...
