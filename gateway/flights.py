"""Requests in flight: what is needed to meter one if its gateway dies between the hold and the journal.

The file is written without fsync: it must survive a killed process, not a power cut, after which the engine has
forgotten the request too and the hold expires.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import uuid_utils

from gateway.database import Database

SCHEMA = (
    """
    CREATE TABLE flights (
        request_id TEXT PRIMARY KEY,
        worker TEXT NOT NULL,
        started_millis INTEGER NOT NULL,
        ticket BLOB NOT NULL,
        record BLOB
    ) STRICT, WITHOUT ROWID;
    """,
)
ABANDONED = ""


@dataclass(frozen=True)
class Ticket:
    """An admitted request: who asked, and for what. All that its usage event needs but the engine's counts."""

    request_id: str
    account: str
    key_id: str
    endpoint: str
    model: str  # the name the client asked for
    base: str  # digests from here
    adapter: str | None
    head: str | None
    terms: str
    price_book: str
    prompt_tokens: int
    reserved_tokens: int  # prompt and completion tokens taken from the key's rate limit
    salt: str  # 32 bytes in hex: of the commitment to the tokens
    started_us: int
    purpose: str = "serve"
    idempotency_key_digest: str | None = None
    composed_of: Mapping[str, int] = field(default_factory=dict)  # parts of a composed adapter, to weights in ppm

    def cut_off(self) -> "Ticket":
        """The ticket by which an answer is metered that did not reach its end.

        With an Idempotency-Key the client runs it anew and pays for that: what was generated until now is lost.
        """
        return self if self.idempotency_key_digest is None else replace(self, purpose="lost")


@dataclass(frozen=True)
class Flight:
    """A stored flight: its ticket, and the journal record if it was sealed."""

    ticket: Ticket
    started_millis: int
    record: bytes | None


class Flights:
    """The flights of all workers of one gateway; a worker is alive while it holds its lock file."""

    def __init__(self, directory: Path) -> None:
        self._database = Database(directory / "flights.db", SCHEMA, synchronous="NORMAL")
        self._directory = directory
        self.worker = uuid_utils.uuid7().hex
        self._lock = os.open(self._lock_file(self.worker), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def begin(self, ticket: Ticket) -> None:
        """Remembers an admitted request, before the engine is asked."""
        with self._database.transaction() as execute:
            execute(
                "INSERT INTO flights VALUES (?, ?, ?, ?, NULL)",
                (ticket.request_id, self.worker, int(time.time() * 1000), orjson.dumps(ticket)),
            )

    def seal(self, request_id: str, record: bytes) -> None:
        """Remembers the journal record, before it is appended: whoever appends it again appends the same bytes."""
        with self._database.transaction() as execute:
            execute("UPDATE flights SET record = ? WHERE request_id = ?", (record, request_id))

    def end(self, request_id: str) -> None:
        """Forgets a request that is durably metered, or that will never have an event."""
        with self._database.transaction() as execute:
            execute("DELETE FROM flights WHERE request_id = ?", (request_id,))

    def abandon(self, request_id: str) -> None:
        """Leaves a request of this worker to recovery."""
        with self._database.transaction() as execute:
            execute("UPDATE flights SET worker = ? WHERE request_id = ?", (ABANDONED, request_id))

    def orphans(self) -> list[Flight]:
        """Flights whose worker is gone, oldest first."""
        rows = self._database.rows("SELECT worker, started_millis, ticket, record FROM flights ORDER BY started_millis")
        dead = {worker for worker in {row[0] for row in rows} if not self._is_alive(worker)}
        return [
            Flight(Ticket(**orjson.loads(ticket)), started_millis, record)
            for worker, started_millis, ticket, record in rows
            if worker in dead
        ]

    @contextmanager
    def recovering(self) -> Iterator[bool]:
        """True for the one worker that may recover orphans now."""
        handle = os.open(self._directory / "recovery.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        try:
            yield alone
        finally:
            os.close(handle)

    def is_open(self, request_id: str) -> bool:
        """True until the request is durably metered or voided."""
        return self._database.row("SELECT 1 FROM flights WHERE request_id = ?", request_id) is not None

    def __len__(self) -> int:
        return len(self._database.rows("SELECT 1 FROM flights"))

    def close(self) -> None:
        self._database.close()
        self._lock_file(self.worker).unlink(missing_ok=True)
        os.close(self._lock)

    def _lock_file(self, worker: str) -> Path:
        return self._directory / f"worker-{worker}.lock"

    def _is_alive(self, worker: str) -> bool:
        if worker in (ABANDONED, self.worker):
            return worker == self.worker
        path = self._lock_file(worker)
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(handle)
