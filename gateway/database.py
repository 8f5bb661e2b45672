"""gateway.db: one SQLite file (WAL, full sync) with numbered migrations; one connection and one lock per process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

MIGRATIONS = (
    # 1: accounts and their API keys
    """
    CREATE TABLE accounts (
        name TEXT PRIMARY KEY,
        role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
        created_seconds INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        secret_sha256 BLOB NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
        account TEXT NOT NULL REFERENCES accounts (name),
        label TEXT NOT NULL,
        created_seconds INTEGER NOT NULL,
        revoked_seconds INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX api_keys_by_account ON api_keys (account);
    """,
    # 2: answers kept for their Idempotency-Key; status is null while the first request is in flight
    """
    CREATE TABLE answers (
        account TEXT NOT NULL,
        key TEXT NOT NULL,
        request_sha256 BLOB NOT NULL CHECK (length(request_sha256) = 32),
        request_id TEXT NOT NULL,
        created_seconds INTEGER NOT NULL,
        status INTEGER,
        media_type TEXT,
        body BLOB,
        PRIMARY KEY (account, key),
        CHECK ((status IS NULL) = (body IS NULL) AND (status IS NULL) = (media_type IS NULL))
    ) STRICT;
    CREATE INDEX answers_by_age ON answers (created_seconds);
    CREATE INDEX answers_by_request ON answers (request_id);
    """,
    # 3: the terms of each adapter, composed once when it is registered; how far registry documents went to the log
    """
    CREATE TABLE terms (
        adapter TEXT PRIMARY KEY,
        document BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE published (sequence INTEGER NOT NULL) STRICT;
    INSERT INTO published VALUES (0);
    """,
    # 4: the terms of each adapter under each policy of its Datanets (those of before are composed again)
    """
    DROP TABLE terms;
    CREATE TABLE terms (
        adapter TEXT NOT NULL,
        policies TEXT NOT NULL,
        document BLOB NOT NULL,
        PRIMARY KEY (adapter, policies)
    ) STRICT, WITHOUT ROWID;
    """,
)


class Database:
    """A connection that any thread may use; `transaction` is the only way to write."""

    def __init__(self, path: Path, migrations: tuple[str, ...] = MIGRATIONS, synchronous: str = "FULL") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(10_000)
        for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._migrate(migrations)

    def _migrate(self, migrations: tuple[str, ...]) -> None:
        with self.transaction() as execute:
            [[version]] = execute("PRAGMA user_version")
            for statements in migrations[version:]:
                execute(statements)
            execute(f"PRAGMA user_version = {max(version, len(migrations))}")

    @contextmanager
    def transaction(self) -> Iterator[Callable[..., list[tuple]]]:
        """One immediate transaction: yields execute(sql, bindings) -> rows; an exception rolls it back."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._rows
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, sql: str, *bindings: Any) -> list[tuple]:
        """The rows of one reading statement."""
        with self._lock:
            return self._rows(sql, bindings)

    def row(self, sql: str, *bindings: Any) -> tuple | None:
        """The first row of one reading statement, or None."""
        return next(iter(self.rows(sql, *bindings)), None)

    def _rows(self, sql: str, bindings: tuple = ()) -> list[tuple]:
        return list(self._connection.execute(sql, bindings))

    def close(self) -> None:
        with self._lock:
            self._connection.close()
