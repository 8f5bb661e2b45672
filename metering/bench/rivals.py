"""What settlement is paired with, on the same store in the same minute: raw inserts, and double entry in plain SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metering.store import Connection, Store

RAW = "CREATE TABLE raw (id TEXT PRIMARY KEY, body {bytes} NOT NULL)"
# after pgledger (github.com/pgr0ss/pgledger): accounts with a version, a transfer, two entries with balances
LEDGER = (
    "CREATE TABLE sql_accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL, version BIGINT NOT NULL)",
    "CREATE TABLE sql_transfers (id TEXT PRIMARY KEY, debit BIGINT NOT NULL, credit BIGINT NOT NULL,"
    " amount BIGINT NOT NULL)",
    "CREATE TABLE sql_entries (transfer TEXT NOT NULL, account BIGINT NOT NULL, amount BIGINT NOT NULL,"
    " balance BIGINT NOT NULL, version BIGINT NOT NULL)",
    "CREATE INDEX sql_entries_account ON sql_entries (account, version)",
)
FUNCTION = """CREATE FUNCTION sql_transfer(name TEXT, source BIGINT, target BIGINT, value BIGINT) RETURNS void AS $$
DECLARE b BIGINT; v BIGINT;
BEGIN
  PERFORM 1 FROM sql_accounts WHERE id IN (source, target) ORDER BY id FOR UPDATE;
  INSERT INTO sql_transfers VALUES (name, source, target, value);
  UPDATE sql_accounts SET balance = balance - value, version = version + 1 WHERE id = source
    RETURNING balance, version INTO b, v;
  INSERT INTO sql_entries VALUES (name, source, -value, b, v);
  UPDATE sql_accounts SET balance = balance + value, version = version + 1 WHERE id = target
    RETURNING balance, version INTO b, v;
  INSERT INTO sql_entries VALUES (name, target, value, b, v);
END $$ LANGUAGE plpgsql"""


def create_rivals(store: Store, *, server: bool) -> None:
    """Their tables, in a database of their own."""
    with store.write() as connection:
        connection.execute(RAW.replace("{bytes}", "BYTEA" if server else "BLOB"))
        for statement in (*LEDGER, FUNCTION) if server else LEDGER:
            connection.execute(statement)
        connection.executemany("INSERT INTO sql_accounts VALUES (?, 0, 0)", [(number,) for number in range(32)])


def insert_raw(store: Store, rows: Sequence[tuple[str, bytes]], batch: int) -> None:
    """The same bytes as settlement stores for these requests, and nothing else: one durable transaction a batch."""
    for start in range(0, len(rows), batch):
        with store.write() as connection:
            connection.insert("raw", "id, body", rows[start : start + batch])


class RowInserts:
    """The rows that settlement wrote, into empty tables of the same schema: what the store itself takes for them."""

    TABLES = (
        ("holds", "id, tenant, account, amount, expires_us, state, posted", "id"),
        ("transfers", "id, debit, credit, amount, code, time_us, window_id, terms", "seq"),
        ("log_leaves", "leaf_index, kind, digest", "leaf_index"),
        (
            "usage",
            "id, event_digest, window_id, tenant, terms, completion_tokens, base_only, amount_nanos, body, leaf_index",
            "leaf_index",
        ),
    )

    def __init__(self, source: Store, target: Store) -> None:
        self._source, self._target = source, target
        self._taken = dict.fromkeys((table for table, _, _ in self.TABLES), 0)
        self._rows: dict[str, list[tuple[Any, ...]]] = {}

    def read(self) -> None:
        """Fetch what was written since the last time, outside of what is timed."""
        with self._source.read() as connection:
            accounts = connection.execute("SELECT id, name, unit, overdraft FROM accounts ORDER BY id")
            for table, columns, order in self.TABLES:
                statement = f"SELECT {columns} FROM {table} ORDER BY {order} LIMIT 1000000000 OFFSET ?"
                self._rows[table] = connection.execute(statement, (self._taken[table],))
                self._taken[table] += len(self._rows[table])
        with self._target.write() as connection:
            known = {row[0] for row in connection.execute("SELECT id FROM accounts")}
            connection.insert("accounts", "id, name, unit, overdraft", [row for row in accounts if row[0] not in known])

    def insert(self, events: int, batch: int) -> None:
        """The rows of `batch` events in a durable transaction."""
        for start in range(0, events, batch):
            part = slice(start, start + batch)
            with self._target.write() as connection:
                for table, columns, _ in self.TABLES:
                    rows = self._rows[table]
                    each = -(-len(rows) // events)  # transfers come two an event
                    connection.insert(table, columns, rows[part.start * each : part.stop * each])


def transfer_in_sql(store: Store, names: Sequence[str], batch: int, server: bool) -> None:
    """One transfer a request, a batch in a durable transaction: on a server a function call, else five statements."""
    for start in range(0, len(names), batch):
        with store.write() as connection:
            some = names[start : start + batch]
            rows = [(name, number % 16, 16 + number % 16, 100) for number, name in enumerate(some)]
            if server:
                connection.executemany("SELECT sql_transfer(?, ?, ?, ?)", rows)
            else:
                for row in rows:
                    _transfer(connection, *row)


def _transfer(connection: Connection, name: str, source: int, target: int, amount: int) -> None:
    connection.execute("INSERT INTO sql_transfers VALUES (?, ?, ?, ?)", (name, source, target, amount))
    for account, value in ((source, -amount), (target, amount)):
        (row,) = connection.execute(
            "UPDATE sql_accounts SET balance = balance + ?, version = version + 1 WHERE id = ?"
            " RETURNING balance, version",
            (value, account),
        )
        connection.execute("INSERT INTO sql_entries VALUES (?, ?, ?, ?, ?)", (name, account, value, *row))
