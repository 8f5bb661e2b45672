"""The database under the ledger: one class per engine, one dialect of SQL for all (see metering.migrations).

Statements use `?` placeholders, `ON CONFLICT` and `RETURNING`, and are written so that each is atomic by itself. Write
transactions are serialised by the engine (SQLite: BEGIN IMMEDIATE), so a transaction may read and then write.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import apsw

from metering.errors import SchemaUnknown
from metering.migrations import MIGRATIONS

BUSY_MILLISECONDS = 30_000


class Connection(Protocol):
    """Statements inside one transaction."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; all rows it returns."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row."""
        ...


class Store(Protocol):
    """A database: transactions over connections, one connection per thread."""

    def write(self) -> Any:
        """Context manager of a write transaction: committed durably on leaving, rolled back on an exception."""
        ...

    def read(self) -> Any:
        """Context manager of a consistent snapshot."""
        ...

    def try_lock(self, name: str) -> bool:
        """Take a named lock until `close`; False when another process has it."""
        ...

    def close(self) -> None: ...


class SqliteStore:
    """One SQLite file: WAL, synchronous=FULL (a committed transaction survives a power cut)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._local = threading.local()
        self._opened: list[apsw.Connection] = []
        self._lock = threading.Lock()
        self._locks: list[int] = []
        migrate(self, SQLITE_TYPES)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        yield from self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        yield from self._transaction("BEGIN")

    def try_lock(self, name: str) -> bool:
        descriptor = os.open(self._path.with_name(f"{self._path.name}.{name}"), os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks.append(descriptor)
        return True

    def close(self) -> None:
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
        while self._locks:
            os.close(self._locks.pop())

    def _transaction(self, begin: str) -> Iterator[Connection]:
        connection = self._connection()
        connection.execute(begin)
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def _connection(self) -> SqliteConnection:
        connection: SqliteConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            raw = apsw.Connection(str(self._path))
            raw.set_busy_timeout(BUSY_MILLISECONDS)
            raw.pragma("journal_mode", "wal")
            raw.pragma("synchronous", "full")
            raw.pragma("foreign_keys", True)
            connection = self._local.connection = SqliteConnection(raw)
            with self._lock:
                self._opened.append(raw)
        return connection


class SqliteConnection:
    """apsw behind the Connection protocol."""

    def __init__(self, raw: apsw.Connection) -> None:
        self._raw = raw

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._raw.execute(sql, parameters).fetchall()

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._raw.executemany(sql, rows).fetchall()

    def rollback(self) -> None:
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")


SQLITE_TYPES = {"{key}": "INTEGER PRIMARY KEY", "{integer}": "INTEGER", "{bytes}": "BLOB", "{strict}": " STRICT"}


def migrate(store: Store, types: dict[str, str]) -> None:
    """Apply the numbered migrations that the database lacks; SchemaUnknown when it has more than this release knows."""
    with store.write() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        rows = connection.execute("SELECT max(version) FROM schema_version")
        version = rows[0][0] or 0
        if version > len(MIGRATIONS):
            raise SchemaUnknown(f"ledger schema {version} is newer than this release's {len(MIGRATIONS)}")
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in statements:
                for mark, type_name in types.items():
                    statement = statement.replace(mark, type_name)
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version (version) VALUES (?)", (number,))
