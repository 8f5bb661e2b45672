"""A ledger database whose user dies in the middle: a store that crashes or fails at a chosen moment."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from metering.errors import LedgerUnavailable
from metering.store import Connection, Rows, Store

MOMENTS = ("statement", "before commit", "after commit", "unavailable")


class Crash(BaseException):
    """The process that runs this is gone. Not an Exception: nothing may catch it."""


class LedgerTail:
    """What a power cut may undo: the holds that were placed since the last durable commit of anybody."""

    def __init__(self) -> None:
        self.holds: list[str] = []

    def lose(self, store: Store, dice: random.Random) -> int:
        """Undo the latest of them, from a random one on; how many."""
        lost = self.holds[dice.randrange(len(self.holds) + 1) :]
        with store.write() as connection:
            for name in lost:
                connection.execute(
                    "UPDATE accounts SET held = held - (SELECT amount FROM holds WHERE holds.id = ?)"
                    " WHERE id = (SELECT account FROM holds WHERE holds.id = ?)",
                    (name, name),
                )
                connection.execute("DELETE FROM holds WHERE id = ?", (name,))
        return len(lost)


class CrashingStore:
    """A Store; armed, its next write transaction ends at a random moment."""

    def __init__(self, inner: Store, dice: random.Random, tail: LedgerTail) -> None:
        self._inner = inner
        self._dice = dice
        self._tail = tail
        self._moment = ""

    def arm(self) -> str:
        """Choose the moment of the next fault; its name. A crash after the commit loses only the answer."""
        self._moment = self._dice.choice(MOMENTS)
        return self._moment

    def disarm(self) -> None:
        self._moment = ""

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        moment, self._moment = self._moment, ""
        with self._inner.write(durable=durable) as connection:
            yield DyingConnection(connection, self._dice.randrange(40)) if moment == "statement" else connection
            if moment == "before commit":
                raise Crash
            if moment == "unavailable":
                raise LedgerUnavailable("simulated: database or disk is full")
        if durable:
            self._tail.holds.clear()
        if moment == "after commit":
            raise Crash

    def read(self) -> AbstractContextManager[Connection]:
        return self._inner.read()

    def try_lock(self, name: str) -> bool:
        return self._inner.try_lock(name)

    def close(self) -> None:
        self._inner.close()


class DyingConnection:
    """A Connection whose user dies before the statement of the given number."""

    def __init__(self, inner: Connection, statements: int) -> None:
        self._inner = inner
        self._left = statements
        self.row_lock = inner.row_lock

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self._count()
        return self._inner.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._count()
        self._inner.executemany(sql, rows)

    def select(self, columns: str, table: str, key: str, values: Sequence[str], *, lock: bool = False) -> Rows:
        self._count()
        return self._inner.select(columns, table, key, values, lock=lock)

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        self._count()
        self._inner.insert(table, columns, rows)

    def update(self, table: str, columns: str, key: str, rows: Sequence[Sequence[Any]]) -> None:
        self._count()
        self._inner.update(table, columns, key, rows)

    def take_turn(self) -> None:
        self._inner.take_turn()

    def _count(self) -> None:
        if not self._left:
            raise Crash
        self._left -= 1
