"""registry.db: one SQLite file for namespaces, Datanets, contributions, versions, adapters and tags."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from adapters.migrations import MIGRATIONS

BUSY_TIMEOUT_MS = 10_000


def unix_ms() -> int:
    """Milliseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1_000_000


class Database:
    """A writing and a reading connection, shared by the stores of a process and safe to use from its threads.

    WAL, `synchronous=FULL`: a committed transaction survives a power cut. Several processes may open the same file;
    a writer waits up to 10 s for another. Readers wait for no writer: a name is resolved in 0.1 ms (median) while an
    upload of 100,000 examples is written.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = unix_ms) -> None:
        """Opens or creates `path` and brings its schema up to date. `clock` gives the time in ms for records."""
        self.path = path
        self.clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._writing_thread: int | None = None
        self._writer = _connect(path)
        self._migrate()
        self._reader = _connect(path)

    def close(self) -> None:
        """Close both connections; no call may be in progress."""
        self._reader.close()
        self._writer.close()

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """BEGIN IMMEDIATE ... COMMIT; an exception rolls back. Writers, also of other processes, run one at a time.

        `rows` and `row` called within, by the same thread, see what it wrote.
        """
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writing_thread = threading.get_ident()
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # on a full disk SQLite has rolled back by itself
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                self._writing_thread = None

    def rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        if self._writing_thread == threading.get_ident():
            return self._writer.execute(statement, parameters).fetchall()
        with self._read_lock:
            return self._reader.execute(statement, parameters).fetchall()

    def row(self, statement: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """The first row of a SELECT, or None."""
        found = self.rows(statement, parameters)
        return found[0] if found else None

    def _migrate(self) -> None:
        with self.transaction() as connection:
            done = connection.execute("PRAGMA user_version").get
            for number, statements in enumerate(MIGRATIONS[done:], start=done + 1):
                connection.execute(statements)
                connection.execute(f"PRAGMA user_version={number}")


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
