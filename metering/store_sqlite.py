"""The embedded ledger database: one SQLite file (see metering.store)."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import apsw

from metering.errors import LedgerUnavailable
from metering.store import Connection, Rows, migrate

BUSY_MILLISECONDS = 30_000
PAGE_BYTES = 8192  # of new files: three receipts fit a page; of 4096 each took a page, and commits twice the time
CHECKPOINT_PAGES = 4_000  # 32 MB of log before pages are copied back: each is then copied less often
CHECKPOINT_NOW_PAGES = 16_000  # whoever commits to a log of this size waits for the copying
CACHE_KIB = 32 * 1024
IN_ONE_STATEMENT = 256  # a transfer took 0.9 us in such a statement, 1.4 us in its own
UNAVAILABLE = (apsw.BusyError, apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError)
SQLITE_TYPES = {
    "{key}": "INTEGER PRIMARY KEY",
    "{integer}": "INTEGER",
    "{bytes}": "BLOB",
    "{strict}": " STRICT",
    "{transfer_accounts}": "SELECT 1",
}


class SqliteStore:
    """One SQLite file: WAL, synchronous=FULL (a committed transaction survives a power cut)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._local = threading.local()
        self._opened: list[apsw.Connection] = []
        self._lock = threading.Lock()
        self._locks: list[int] = []
        self._checkpointer = Checkpointer(path)
        with self.write() as connection:
            migrate(connection, SQLITE_TYPES)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        yield from self._transaction("BEGIN IMMEDIATE", durable)

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
        self._checkpointer.close()
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
        while self._locks:
            os.close(self._locks.pop())

    def _transaction(self, begin: str, durable: bool = True) -> Iterator[Connection]:
        try:
            connection = self._connection()
            connection.be_durable(durable)
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
        except UNAVAILABLE as error:
            raise LedgerUnavailable(f"{self._path}: {error}") from error

    def _connection(self) -> SqliteConnection:
        connection: SqliteConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            raw = apsw.Connection(str(self._path))
            raw.set_busy_timeout(BUSY_MILLISECONDS)
            raw.pragma("page_size", PAGE_BYTES)
            raw.pragma("journal_mode", "wal")
            raw.pragma("synchronous", "full")
            raw.pragma("foreign_keys", True)
            raw.set_wal_hook(self._checkpointer.committed)
            raw.pragma("cache_size", -CACHE_KIB)
            connection = self._local.connection = SqliteConnection(raw)
            with self._lock:
                self._opened.append(raw)
        return connection


class Checkpointer:
    """Copies the log's pages back into the file in a thread of its own: done by a commit, as is SQLite's default, each
    would now and then take 30 ms longer, a request's hold too (measured on a settler's log of 32 MB).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[None] | None = None

    def committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        """What SQLite calls after a commit that leaves so many pages in the log."""
        if pages >= CHECKPOINT_NOW_PAGES:
            _copy_back(connection)
        elif pages >= CHECKPOINT_PAGES and (self._last is None or self._last.done()):
            with suppress(RuntimeError):  # closed meanwhile: the commit stands, and the next process copies back
                self._last = self._pool.submit(self._copy_back)
        return apsw.SQLITE_OK

    def close(self) -> None:
        """Waits for the copying under way."""
        self._pool.shutdown()

    def _copy_back(self) -> None:
        connection = apsw.Connection(str(self._path))
        connection.pragma("schema_version")  # a connection that has read nothing knows of no log
        _copy_back(connection)
        connection.close()


def _copy_back(connection: apsw.Connection) -> None:
    """As far as readers allow; another process may be at it, and a full disk is what the next commit reports."""
    with suppress(apsw.BusyError, *UNAVAILABLE):
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


class SqliteConnection:
    """apsw behind the Connection protocol."""

    row_lock = ""

    def __init__(self, raw: apsw.Connection) -> None:
        self._raw = raw
        self._durable = True

    def be_durable(self, durable: bool) -> None:
        """Whether commits wait for the device. The log is one sequence: a later durable commit covers earlier ones."""
        if durable != self._durable:
            self._raw.pragma("synchronous", "full" if durable else "normal")
            self._durable = durable

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._raw.execute(sql, parameters).fetchall()

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._raw.executemany(sql, rows).fetchall()

    def select(self, columns: str, table: str, key: str, values: Sequence[str], *, lock: bool = False) -> Rows:
        rows: Rows = []
        for start in range(0, len(values), IN_ONE_STATEMENT):
            some = values[start : start + IN_ONE_STATEMENT]
            rows += self.execute(f"SELECT {columns} FROM {table} WHERE {key} IN ({','.join('?' * len(some))})", some)
        return rows

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        self._many(f"INSERT INTO {table} ({columns}) VALUES {{rows}}", columns.count(",") + 1, rows)

    def update(self, table: str, columns: str, key: str, rows: Sequence[Sequence[Any]]) -> None:
        names = columns.split(", ")
        changes = ", ".join(f"{name} = new.column{number}" for number, name in enumerate(names, start=1))
        statement = (
            f"UPDATE {table} SET {changes} FROM (VALUES {{rows}}) AS new WHERE {key} = new.column{len(names) + 1}"
        )
        self._many(statement, len(names) + 1, rows)

    def take_turn(self) -> None:
        """BEGIN IMMEDIATE took it."""

    def rollback(self) -> None:
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    def _many(self, statement: str, width: int, rows: Sequence[Sequence[Any]]) -> None:
        """Run the statement for parts of the rows, whose marks take the place of `{rows}`."""
        marks = f"({', '.join('?' * width)})"
        for start in range(0, len(rows), IN_ONE_STATEMENT):
            part = rows[start : start + IN_ONE_STATEMENT]
            self.execute(statement.format(rows=", ".join([marks] * len(part))), tuple(chain.from_iterable(part)))
