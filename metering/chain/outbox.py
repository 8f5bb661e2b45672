"""What was signed and sent, in one SQLite file: a restarted client goes on exactly where it was.

A transaction is on disk before it is on the wire, so the same one is sent again and no second one takes its place.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS transactions (
        id INTEGER PRIMARY KEY, chain_id INTEGER NOT NULL, sender TEXT NOT NULL, key TEXT NOT NULL,
        receiver TEXT, data BLOB NOT NULL, nonce INTEGER NOT NULL, state TEXT NOT NULL,
        gas INTEGER NOT NULL, UNIQUE (chain_id, sender, key),
        CHECK (state IN ('pending', 'mined', 'final', 'failed'))) STRICT""",
    # signed bytes, one row for each fee that was offered; only one of a transaction's attempts can ever be mined
    """CREATE TABLE IF NOT EXISTS attempts (
        hash TEXT PRIMARY KEY, transaction_id INTEGER NOT NULL REFERENCES transactions (id), raw BLOB NOT NULL,
        max_fee_wei INTEGER NOT NULL, priority_fee_wei INTEGER NOT NULL, time_us INTEGER NOT NULL) STRICT""",
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Signed bytes with their fees per gas."""

    hash: str
    raw: bytes
    max_fee_wei: int
    priority_fee_wei: int
    time_us: int


@dataclass(slots=True)
class Entry:
    """A transaction by its `key`; `attempts` in the order they were signed, all with the same nonce."""

    id: int
    receiver: str | None
    data: bytes
    nonce: int
    state: str
    gas: int
    attempts: list[Attempt]


class Outbox:
    """The transactions of one sender on one chain."""

    def __init__(self, path: Path | None, chain_id: int, sender: str) -> None:
        """`path` None keeps it in memory: for callers whose transactions are idempotent by themselves."""
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = apsw.Connection(str(path) if path is not None else ":memory:")
        self._db.set_busy_timeout(30_000)
        if path is not None:
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", "full")
        for statement in SCHEMA:
            self._db.execute(statement)
        self._of = (chain_id, sender)

    def close(self) -> None:
        self._db.close()

    def find(self, key: str) -> Entry | None:
        rows = self._rows(
            "SELECT id, receiver, data, nonce, state, gas FROM transactions"
            " WHERE chain_id = ? AND sender = ? AND key = ?",
            (*self._of, key),
        )
        return self._entry(rows[0]) if rows else None

    def between(self, low_nonce: int, high_nonce: int) -> list[Entry]:
        """The transactions of low_nonce <= nonce < high_nonce, in that order."""
        rows = self._rows(
            "SELECT id, receiver, data, nonce, state, gas FROM transactions"
            " WHERE chain_id = ? AND sender = ? AND nonce >= ? AND nonce < ? ORDER BY nonce",
            (*self._of, low_nonce, high_nonce),
        )
        return [self._entry(row) for row in rows]

    def next_nonce(self) -> int:
        """One above the highest nonce that is signed and not known to be mined for good."""
        rows = self._rows(
            "SELECT max(nonce) FROM transactions WHERE chain_id = ? AND sender = ? AND state IN ('pending', 'mined')",
            self._of,
        )
        return 0 if rows[0][0] is None else rows[0][0] + 1

    def put(self, key: str, receiver: str | None, data: bytes, nonce: int, gas: int, attempt: Attempt) -> Entry:
        """Durably store a new transaction with its first attempt; a lost or failed one of the same key is replaced."""
        with self._db:
            self._db.execute(
                "DELETE FROM attempts WHERE transaction_id IN"
                " (SELECT id FROM transactions WHERE chain_id = ? AND sender = ? AND key = ?)",
                (*self._of, key),
            )
            rows = self._rows(
                "INSERT INTO transactions (chain_id, sender, key, receiver, data, nonce, state, gas)"
                " VALUES (?, ?, ?, ?, ?, ?, 'pending', ?) ON CONFLICT (chain_id, sender, key) DO UPDATE SET"
                " receiver = excluded.receiver, data = excluded.data, nonce = excluded.nonce, state = 'pending',"
                " gas = excluded.gas RETURNING id",
                (*self._of, key, receiver, data, nonce, gas),
            )
            self._add(rows[0][0], attempt)
        return Entry(rows[0][0], receiver, data, nonce, "pending", gas, [attempt])

    def add_attempt(self, entry: Entry, attempt: Attempt) -> None:
        """Durably store the same transaction, signed again with a higher fee."""
        with self._db:
            self._add(entry.id, attempt)
        entry.attempts.append(attempt)

    def set_state(self, entry: Entry, state: str) -> None:
        if entry.state != state:
            self._db.execute("UPDATE transactions SET state = ? WHERE id = ?", (state, entry.id))
            entry.state = state

    def _rows(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, parameters).fetchall()

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        attempts = self._rows(
            "SELECT hash, raw, max_fee_wei, priority_fee_wei, time_us FROM attempts"
            " WHERE transaction_id = ? ORDER BY rowid",
            (row[0],),
        )
        identifier, receiver, data, nonce, state, gas = row
        return Entry(identifier, receiver, data, nonce, state, gas, [Attempt(*attempt) for attempt in attempts])

    def _add(self, identifier: int, attempt: Attempt) -> None:
        self._db.execute(
            "INSERT INTO attempts (transaction_id, hash, raw, max_fee_wei, priority_fee_wei, time_us)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                identifier, attempt.hash, attempt.raw, attempt.max_fee_wei, attempt.priority_fee_wei, attempt.time_us,
            ),
        )  # fmt: skip


def new_attempt(signed: tuple[str, bytes], max_fee_wei: int, priority_fee_wei: int) -> Attempt:
    return Attempt(*signed, max_fee_wei, priority_fee_wei, time.time_ns() // 1000)
