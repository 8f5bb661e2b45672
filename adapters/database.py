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
    """One connection, shared by the stores of a process and safe to use from its threads.

    WAL, `synchronous=FULL`: a committed transaction survives a power cut. Several processes may open the same file;
    a writer waits up to 10 s for another.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = unix_ms) -> None:
        """Opens or creates `path` and brings its schema up to date. `clock` gives the time in ms for records."""
        self.path = path
        self.clock = clock
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._migrate()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """BEGIN IMMEDIATE ... COMMIT; an exception rolls back. Writers, also of other processes, run one at a time."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()

    def row(self, statement: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """The first row of a SELECT, or None."""
        with self._lock:
            return self._connection.execute(statement, parameters).fetchone()

    def _migrate(self) -> None:
        with self.transaction() as connection:
            done = connection.execute("PRAGMA user_version").get
            for number, statements in enumerate(MIGRATIONS[done:], start=done + 1):
                connection.execute(statements)
                connection.execute(f"PRAGMA user_version={number}")
