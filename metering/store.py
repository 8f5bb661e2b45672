"""The database under the ledger: one class per engine, one dialect of SQL for all (see metering.migrations).

Statements use `?` placeholders, `ON CONFLICT` and `RETURNING`. A write transaction may read rows and then change them:
SQLite runs one writer at a time (BEGIN IMMEDIATE); on PostgreSQL rows that decide a change are read with `row_lock`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from metering.config import MeteringConfig
from metering.errors import LedgerElsewhere, SchemaUnknown
from metering.migrations import MIGRATIONS

Rows = list[tuple[Any, ...]]


class Connection(Protocol):
    """Statements inside one transaction."""

    row_lock: str  # what a SELECT ends with to keep its rows as they are until the transaction ends

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; all rows it returns."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row."""
        ...

    def select(self, columns: str, table: str, key: str, values: Sequence[str], *, lock: bool = False) -> Rows:
        """The rows whose `key` is one of many texts, in any order; `lock` keeps them as they are, like `row_lock`."""
        ...

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        """Add many new rows in the database's fastest way. `columns` are names, separated by commas."""
        ...

    def update(self, table: str, columns: str, key: str, rows: Sequence[Sequence[Any]]) -> None:
        """Set text and integer columns of many rows, each given as its new values and then its key."""
        ...

    def take_turn(self) -> None:
        """Wait until this is the only transaction that took its turn. Taken first, so that what is read is settled.

        Settlement is one sequence, whoever does it: log leaves, windows and the time of settlement have one order.
        Nothing that another settler may change is kept between turns. Whoever stalls in its turn loses it.
        """
        ...


class Store(Protocol):
    """A database: transactions over connections, one connection per thread."""

    def write(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """A write transaction: committed durably on leaving, rolled back on an exception. Raises LedgerUnavailable.

        Without `durable` a power cut (not a killed process) may undo it, together with all that came after it.
        """
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """A consistent snapshot. Raises LedgerUnavailable."""
        ...

    def try_lock(self, name: str) -> bool:
        """Take a named lock until `close`; False when another process has it."""
        ...

    def close(self) -> None: ...


def open_store(config: MeteringConfig) -> Store:
    """The store that the setting names: `ledger_url` empty for the embedded file, postgresql://... for a server.

    LedgerElsewhere when the data directory has the other kind: an empty ledger would silently take its place.
    """
    refuse_other_ledger(config)
    if config.ledger_url:
        from metering.store_postgres import PostgresStore  # the driver is loaded only by those who use it

        store = PostgresStore(config.ledger_url)
        config.data_dir.mkdir(parents=True, exist_ok=True)
        config.ledger_mark.write_text("The ledger of this data directory is on a PostgreSQL server.\n")
        return store
    from metering.store_sqlite import SqliteStore

    return SqliteStore(config.ledger_path)


def refuse_other_ledger(config: MeteringConfig) -> None:
    """See open_store."""
    if config.ledger_url and config.ledger_path.exists():
        raise LedgerElsewhere(f"{config.ledger_path} is this data directory's ledger: unset OPENLEDGER_LEDGER")
    if not config.ledger_url and config.ledger_mark.exists():
        raise LedgerElsewhere(f"the ledger of {config.data_dir} is on a server: set OPENLEDGER_LEDGER=postgresql://...")


def migrate(connection: Connection, types: dict[str, str]) -> None:
    """Apply the numbered migrations that the database lacks; SchemaUnknown when it has more than this release knows."""
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
    version = connection.execute("SELECT max(version) FROM schema_version")[0][0] or 0
    if version > len(MIGRATIONS):
        raise SchemaUnknown(f"ledger schema {version} is newer than this release's {len(MIGRATIONS)}")
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        for statement in statements:
            for mark, type_name in types.items():
                statement = statement.replace(mark, type_name)
            connection.execute(statement)
        connection.execute("INSERT INTO schema_version (version) VALUES (?)", (number,))
