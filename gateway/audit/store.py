"""audit.db: samples that wait, results, alarms, and the accounts that opted out.

A sample's token ids are deleted in the transaction that stores its result, and their pages are overwritten
(secure_delete). Nothing of a request is kept beyond scores' sums, counts and the correlation.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.database import Database

QUEUE_MAX = 1_000
SCHEMA = (
    """
    CREATE TABLE samples (
        request_id TEXT PRIMARY KEY,
        account TEXT NOT NULL,
        adapter TEXT NOT NULL,
        body BLOB NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE results (
        request_id TEXT PRIMARY KEY,
        adapter TEXT NOT NULL,
        status TEXT NOT NULL,
        detail TEXT NOT NULL,
        scorer TEXT,
        tokens INTEGER NOT NULL,
        served_error_ppm INTEGER,
        correlation TEXT,
        reported TEXT,
        moments TEXT,
        audited_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX results_by_adapter ON results (adapter, status, audited_ms);
    CREATE TABLE alarms (
        adapter TEXT NOT NULL,
        raised_ms INTEGER NOT NULL,
        document TEXT NOT NULL,
        cleared_ms INTEGER,
        PRIMARY KEY (adapter, raised_ms)
    ) STRICT;
    CREATE TABLE opted_out (account TEXT PRIMARY KEY, since_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO facts VALUES ('dropped', '0'), ('reason', 'the audit process has not started');
    """,
)
COLUMNS = (
    "request_id", "adapter", "status", "detail", "scorer", "tokens", "served_error_ppm", "correlation", "reported",
    "moments", "audited_ms",
)  # fmt: skip
JSON_COLUMNS = ("correlation", "reported", "moments")


@dataclass(frozen=True)
class Sample:
    """A request to score again: token ids of its prompts and choices, and the micro-nats served by contributor."""

    request_id: str
    adapter: str
    base: str
    prompts: list[list[int]]
    choices: list[list[int]]
    scores: dict[str, int]


@dataclass(frozen=True)
class Result:
    """What an audit found. `status` is ok, drift, served_mismatch, or the code of why it could not be done.

    `correlation` and `reported` as in fidelity.json; `moments` as in `correlation.pooled`; `served_error_ppm` is the
    largest difference between served and recomputed sums over the largest recomputed sum.
    """

    request_id: str
    adapter: str
    status: str
    detail: str = ""
    scorer: str | None = None
    tokens: int = 0
    served_error_ppm: int | None = None
    correlation: dict[str, int] | None = None
    reported: dict[str, int] | None = None
    moments: list[float] | None = None
    audited_ms: int = 0

    @property
    def was_scored(self) -> bool:
        return self.moments is not None


class AuditStore:
    """One SQLite file for the gateway's workers and the audit process."""

    def __init__(self, directory: Path) -> None:
        self._database = Database(directory / "audit.db", SCHEMA, synchronous="NORMAL")
        self._database.rows("PRAGMA secure_delete = ON")

    def offer(self, sample: Sample, account: str) -> bool:
        """Queues a sample; False when its account opted out, or when the queue is full (which is counted)."""
        body = orjson.dumps([sample.base, sample.prompts, sample.choices, sample.scores])
        row = (sample.request_id, account, sample.adapter, body, _now_ms())
        with self._database.transaction() as execute:
            if execute("SELECT 1 FROM opted_out WHERE account = ?", (account,)):
                return False
            if execute("SELECT count(*) FROM samples")[0][0] >= QUEUE_MAX:
                execute("UPDATE facts SET value = value + 1 WHERE name = 'dropped'")
                return False
            execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
        return True

    def waiting(self) -> int:
        """Samples that wait."""
        return self._database.rows("SELECT count(*) FROM samples")[0][0]

    def next_samples(self, limit: int) -> list[Sample]:
        """The oldest samples, grouped by adapter so that a model is loaded once."""
        rows = self._database.rows(
            "SELECT request_id, adapter, body FROM samples ORDER BY adapter, created_ms LIMIT ?", limit
        )
        return [Sample(request_id, adapter, *orjson.loads(body)) for request_id, adapter, body in rows]

    def finish(self, result: Result) -> None:
        """Stores a result and forgets the sample's tokens."""
        values = vars(result) | {"audited_ms": _now_ms()}
        values |= {name: _text(values[name]) for name in JSON_COLUMNS}
        with self._database.transaction() as execute:
            execute("DELETE FROM samples WHERE request_id = ?", (result.request_id,))
            marks = ", ".join("?" * len(COLUMNS))
            execute(f"INSERT OR REPLACE INTO results VALUES ({marks})", tuple(values[name] for name in COLUMNS))

    def results(self, adapter: str | None = None, limit: int = 100) -> list[Result]:
        """The newest results, of one adapter or of all."""
        rows = self._database.rows(
            f"SELECT {', '.join(COLUMNS)} FROM results WHERE ?1 IS NULL OR adapter = ?1"
            " ORDER BY audited_ms DESC LIMIT ?2",
            adapter,
            limit,
        )
        return [_result(row) for row in rows]

    def window(self, adapter: str, limit: int) -> list[Result]:
        """The newest results of an adapter that have scores."""
        rows = self._database.rows(
            f"SELECT {', '.join(COLUMNS)} FROM results WHERE adapter = ? AND moments IS NOT NULL"
            " ORDER BY audited_ms DESC LIMIT ?",
            adapter,
            limit,
        )
        return [_result(row) for row in rows]

    def counts(self) -> list[tuple[str, str, int]]:
        """(adapter, status, number) of all results."""
        return self._database.rows(
            "SELECT adapter, status, count(*) FROM results GROUP BY adapter, status ORDER BY 1, 2"
        )

    def open_alarm(self, adapter: str) -> dict[str, Any] | None:
        """The document of the alarm that stands, or None."""
        row = self._database.row("SELECT document FROM alarms WHERE adapter = ? AND cleared_ms IS NULL", adapter)
        return orjson.loads(row[0]) if row else None

    def raise_alarm(self, adapter: str, document: bytes) -> None:
        with self._database.transaction() as execute:
            execute("INSERT INTO alarms VALUES (?, ?, ?, NULL)", (adapter, _now_ms(), document.decode()))

    def clear_alarm(self, adapter: str) -> None:
        with self._database.transaction() as execute:
            execute("UPDATE alarms SET cleared_ms = ? WHERE adapter = ? AND cleared_ms IS NULL", (_now_ms(), adapter))

    def opt_out(self, account: str) -> None:
        """No request of the account is sampled from now on; those that wait are forgotten."""
        with self._database.transaction() as execute:
            execute("DELETE FROM samples WHERE account = ?", (account,))
            execute("INSERT INTO opted_out VALUES (?, ?) ON CONFLICT DO NOTHING", (account, _now_ms()))

    def opt_in(self, account: str) -> None:
        with self._database.transaction() as execute:
            execute("DELETE FROM opted_out WHERE account = ?", (account,))

    def has_opted_out(self, account: str) -> bool:
        return self._database.row("SELECT 1 FROM opted_out WHERE account = ?", account) is not None

    def dropped(self) -> int:
        """Samples that a full queue refused."""
        return int(self._fact("dropped"))

    @property
    def reason(self) -> str:
        """Why nothing is audited; empty while the audit process works."""
        return self._fact("reason")

    def set_reason(self, reason: str) -> None:
        with self._database.transaction() as execute:
            execute("UPDATE facts SET value = ? WHERE name = 'reason'", (reason,))

    def close(self) -> None:
        self._database.close()

    def _fact(self, name: str) -> str:
        row = self._database.row("SELECT value FROM facts WHERE name = ?", name)
        assert row is not None
        return row[0]


def _result(row: Sequence[Any]) -> Result:
    values = dict(zip(COLUMNS, row, strict=True))
    return Result(**{**values, **{name: values[name] and orjson.loads(values[name]) for name in JSON_COLUMNS}})


def _text(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
