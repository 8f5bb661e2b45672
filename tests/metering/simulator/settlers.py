"""The settlers of a run: started from what is on disk, acting, dying in the middle of a transaction."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from metering import ledger as ledger_module
from metering import settler as settler_module
from metering.config import MeteringConfig
from metering.errors import LedgerUnavailable, LogKeyRetired
from metering.settler import Settler
from metering.source import EventSource
from metering.source_journal import JournalSource
from metering.store import Store
from metering.store_sqlite import SqliteStore
from tests.metering.simulator.bus import Bus, BusSource
from tests.metering.simulator.database import Crash, CrashingStore, LedgerTail


class Settlers:
    """One beside a journal; two on a bus, whose transactions take turns."""

    def __init__(self, config: MeteringConfig, bus: Bus | None, tail: LedgerTail, dice: random.Random) -> None:
        self._config, self._bus, self._tail, self._dice = config, bus, tail, dice
        self.count = 2 if bus else 1
        self._running: list[Settler | None] = [None] * self.count
        self._stores: list[CrashingStore | None] = [None] * self.count
        self._starting = 0  # the one that opens its store now

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While entered, a settler gets the run's stores and events."""
        with (
            mock.patch.object(ledger_module, "open_store", self._open_store),
            mock.patch.object(settler_module, "open_source", self._open_source),
        ):
            yield

    def act(self, act: Callable[[Settler], object], number: int | None = None) -> str:
        """Start a settler when it is down, let it act, and bury it when it crashes. One whose key was retired reads the
        new one, as the process does."""
        if number is None:
            number = self._dice.randrange(self.count)
        self._starting = number
        try:
            settler = self._running[number] = self._running[number] or Settler(self._config)
            return str(act(settler))
        except Crash:
            self._bury(number)
            return "crashed"
        except LogKeyRetired:
            settler = self._running[number]
            return f"its key is retired, new one read: {settler is not None and settler.read_key()}"
        except LedgerUnavailable as error:
            return str(error)

    def crash(self) -> str:
        """The next transaction of one of them ends at a moment of the dice's choosing."""
        number = self._dice.randrange(self.count)
        store = self._stores[number]
        if store is None:
            return "it is down"
        act = self._dice.choice((Settler.step, Settler.tick))
        return f"{store.arm()}, {self.act(act, number)}"

    def drain(self) -> None:
        for number in range(self.count):
            self.act(lambda settler: settler.drain(), number)

    def drop(self) -> None:
        """kill -9 for all of them."""
        for number in range(self.count):
            self._bury(number)

    def _bury(self, number: int) -> None:
        settler, self._running[number], self._stores[number] = self._running[number], None, None
        if settler is not None:
            settler.close()

    def _open_store(self, config: MeteringConfig) -> Store:
        store = self._stores[self._starting] = CrashingStore(SqliteStore(config.ledger_path), self._dice, self._tail)
        return store

    def _open_source(self, config: MeteringConfig, store: Store) -> EventSource:
        return BusSource(self._bus) if self._bus else JournalSource(config, store)
