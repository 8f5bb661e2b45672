"""A bus between journal and settlers: late, twice, out of order; killed, its server forgets what it had not synced."""

from __future__ import annotations

import random
from collections.abc import Sequence

from metering.config import MeteringConfig
from metering.forwarder_state import load_state
from metering.journal_reader import JournalReader
from metering.source import SourceRecord
from metering.store import Connection
from tests.metering.simulator.clock import Clock
from tests.metering.simulator.database import Crash

REDELIVER_US = 30_000_000
DELAYS_US = (0, 0, 0, 2_000_000, 35_000_000)


class Bus:
    """A stream with one durable consumer. A position is (server, sequence number)."""

    def __init__(self, clock: Clock, dice: random.Random) -> None:
        self._clock, self._dice = clock, dice
        self.server = 1
        self._last = 0
        self._synced = 0  # what a killed server still has
        self._waiting: dict[int, bytes] = {}  # not acknowledged
        self._due: dict[int, int] = {}  # when each may be delivered (again)

    def publish(self, payload: bytes) -> int:
        self._last += 1
        self._waiting[self._last] = payload
        self._due[self._last] = self._clock.true_us + self._dice.choice(DELAYS_US)
        if self._dice.random() < 0.3:
            self._synced = self._last
        return self._last

    def fetch(self, limit: int) -> list[SourceRecord]:
        """In any order; some are given to the next who asks as well."""
        ready = [number for number in self._waiting if self._due[number] <= self._clock.true_us]
        self._dice.shuffle(ready)
        for number in ready[:limit]:
            self._due[number] = self._clock.true_us + self._dice.choice((0, REDELIVER_US, REDELIVER_US))
        return [SourceRecord(self._waiting[number], (self.server, number)) for number in ready[:limit]]

    def acknowledge(self, positions: Sequence[tuple[int, int]]) -> None:
        for server, number in positions:
            if server == self.server and self._dice.random() > 0.1:  # else it gets lost
                self._waiting.pop(number, None)

    def floor(self) -> int:
        """All up to this sequence number is acknowledged."""
        return min(self._waiting, default=self._last + 1) - 1

    def kill(self) -> int:
        """The server dies and comes back; how many events it lost."""
        lost = [number for number in self._waiting if number > self._synced]
        for number in lost:
            del self._waiting[number]
        self.server += 1
        self._last = self._synced
        return len(lost)

    @property
    def is_empty(self) -> bool:
        return not self._waiting


class BusSource:
    """What metering.source_nats is on a real bus: what it fetched stays its own until it is acknowledged."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._unsettled: list[SourceRecord] = []

    def read(self, limit: int) -> list[SourceRecord]:
        if not self._unsettled:
            self._unsettled = self._bus.fetch(2 * limit)
        return self._unsettled[:limit]

    def read_ahead(self, limit: int, beyond: Sequence[SourceRecord]) -> list[SourceRecord]:
        return self._unsettled[len(beyond) : len(beyond) + limit]

    def store_position(self, connection: Connection, records: Sequence[SourceRecord]) -> None: ...

    def acknowledge(self, records: Sequence[SourceRecord]) -> None:
        self._unsettled = self._unsettled[len(records) :]
        self._bus.acknowledge([record.position for record in records])

    def tidy(self) -> None: ...

    def problems(self) -> list[str]:
        return []

    def close(self) -> None: ...


class SimulatedForwarder:
    """The order of metering.forwarder over its real state and the real reader; killed before it saves, at times."""

    def __init__(self, config: MeteringConfig, bus: Bus, dice: random.Random) -> None:
        self._config, self._bus, self._dice = config, bus, dice
        config.journal_dir.mkdir()
        self.restart()

    def restart(self) -> None:
        self.state = load_state(self._config.journal_dir)
        self._reader = JournalReader(self._config.journal_dir)

    def publish(self) -> int:
        self._attach()
        records = self._reader.read(self.state.cursors, self._config.batch_size)
        for record in records:
            self.state.note(*record.position, self._bus.publish(record.payload))
        if records and self._dice.random() < 0.1:
            raise Crash
        self.state.save(self._config.journal_dir)
        return len(records)

    def tidy(self) -> int:
        """Segments of which all is settled go; how many."""
        self._attach()
        self.state.settle(self._bus.floor())
        self._reader.seal_orphans()
        removed = self._reader.remove_settled(self.state.settled_cursors, self._config.journal_retention_seconds)
        self.state.forget(set(self._reader.segments()))
        self.state.save(self._config.journal_dir)
        return len(removed)

    def _attach(self) -> None:
        server = str(self._bus.server)
        if server != self.state.server:
            self.state.start_over("stream", server)
            self._reader = JournalReader(self._config.journal_dir)
