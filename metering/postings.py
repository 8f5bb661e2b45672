"""Transfers and hold changes of one transaction, written together: the ledger and the settler both post through it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from metering.canonical import INT_MAX
from metering.store import Connection

HOLD_COLUMNS = "id, tenant, account, amount, expires_us, state"


@dataclass(slots=True)
class Account:
    """A row of `accounts` with what this transaction has added so far."""

    id: int
    name: str
    unit: str
    overdraft: bool
    credits: int
    debits: int
    held: int

    @property
    def available(self) -> int:
        return self.credits - self.debits - self.held


class Transfer(NamedTuple):
    """`amount` units from account `debit` to account `credit` (names); `code` says why, `id` makes it happen once."""

    id: str
    debit: str
    credit: str
    unit: str
    amount: int
    code: str
    window: int | None = None
    terms: str | None = None


class Hold(NamedTuple):
    """A row of `holds`: `amount_nanos` of the tenant's account set aside until it ends or `expires_us`."""

    id: str
    tenant: str
    account: int
    amount_nanos: int
    expires_us: int
    state: str


class Postings:
    """Buffers the changes of one transaction until `flush`. Callers test balances; the tables' CHECKs back them."""

    def __init__(self, connection: Connection, time_us: int) -> None:
        self._connection = connection
        self._time_us = time_us
        self._accounts: dict[tuple[str, str], Account] = {}
        self._by_id: dict[int, Account] = {}
        self._loaded: dict[str, Hold | None] = {}
        self._deltas: defaultdict[int, list[int]] = defaultdict(_no_change)
        self._transfers: list[tuple[object, ...]] = []
        self._holds: list[tuple[object, ...]] = []

    def find(self, name: str, unit: str) -> Account | None:
        """The account as it stands inside this transaction, or None."""
        key = (name, unit)
        account = self._accounts.get(key)
        if account is None:
            rows = self._connection.execute(
                "SELECT id, overdraft, credits, debits, held FROM accounts WHERE name = ? AND unit = ?"
                + self._connection.row_lock,
                key,
            )
            if not rows:
                return None
            identifier, overdraft, credits, debits, held = rows[0]
            more = self._deltas.get(identifier, (0, 0, 0))  # buffered before the account was read
            account = self._accounts[key] = self._by_id[identifier] = Account(
                identifier, name, unit, bool(overdraft), credits + more[0], debits + more[1], held + more[2]
            )
        return account

    def open(self, name: str, unit: str, *, overdraft: bool) -> Account:
        """The account, created when missing. `overdraft`: may its balance go below zero."""
        account = self.find(name, unit)
        if account is None:
            self._connection.execute(
                "INSERT INTO accounts (name, unit, overdraft) VALUES (?, ?, ?) ON CONFLICT (name, unit) DO NOTHING",
                (name, unit, int(overdraft)),
            )
            account = self.find(name, unit)
            assert account is not None
        return account

    def fits(self, account: Account, amount: int) -> bool:
        """False when `amount` more would leave 64 bits."""
        return max(account.credits, account.debits) + amount <= INT_MAX

    def post(self, transfer: Transfer, debit: Account, credit: Account) -> None:
        name, _, _, _, amount, code, window, terms = transfer
        debit.debits += amount
        credit.credits += amount
        deltas = self._deltas
        deltas[debit.id][1] += amount
        deltas[credit.id][0] += amount
        self._transfers.append((name, debit.id, credit.id, amount, code, self._time_us, window, terms))

    def place(self, hold: Hold, account: Account) -> None:
        """Set `amount_nanos` of `account` aside."""
        self._held(account.id, hold.amount_nanos)
        self._connection.execute(
            "INSERT INTO holds (id, tenant, account, amount, expires_us, state) VALUES (?, ?, ?, ?, ?, 'pending')",
            (hold.id, hold.tenant, account.id, hold.amount_nanos, hold.expires_us),
        )

    def release(self, hold: Hold, state: str, posted: int = 0) -> None:
        """End a pending hold: it sets nothing aside any more."""
        self._held(hold.account, -hold.amount_nanos)
        self._holds.append((state, posted, hold.id))
        if hold.id in self._loaded:
            self._loaded[hold.id] = Hold._make((*hold[:-1], state))  # a fourth of what _replace takes

    def load_holds(self, hold_ids: Sequence[str]) -> None:
        """Read many holds at once, for `find_hold`."""
        self._loaded.update(dict.fromkeys(hold_ids))
        rows = self._connection.select(HOLD_COLUMNS, "holds", "id", hold_ids, lock=True)
        self._loaded.update({row[0]: Hold._make(row) for row in rows})

    def find_hold(self, hold_id: str) -> Hold | None:
        """The hold as it stands inside this transaction, or None."""
        if hold_id in self._loaded:
            return self._loaded[hold_id]
        rows = self._connection.execute(
            f"SELECT {HOLD_COLUMNS} FROM holds WHERE id = ?{self._connection.row_lock}", (hold_id,)
        )
        return Hold(*rows[0]) if rows else None

    def flush(self) -> None:
        """Write what is buffered. Releases go first, so that a post never trips over its own hold."""
        self._connection.update("holds", "state, posted", "id", self._holds)
        self._connection.insert(
            "transfers", "id, debit, credit, amount, code, time_us, window_id, terms", self._transfers
        )
        self._connection.executemany(
            "UPDATE accounts SET credits = credits + ?, debits = debits + ?, held = held + ? WHERE id = ?",
            [(*delta, identifier) for identifier, delta in sorted(self._deltas.items())],
        )
        self._holds, self._transfers = [], []
        self._deltas.clear()

    def _held(self, account_id: int, amount: int) -> None:
        account = self._by_id.get(account_id)
        if account is not None:
            account.held += amount
        self._deltas[account_id][2] += amount


def _no_change() -> list[int]:
    """Of credits, debits and held."""
    return [0, 0, 0]
