"""Gateway workers: hold, generate, seal, append, acknowledge; what a killed one leaves, the others recover.

The order is that of gateway/settling.py and recovery.py: a flight keeps the sealed record until its append was
acknowledged, so that whoever appends it again appends the same bytes.
"""

from __future__ import annotations

import random
from concurrent.futures import Future
from dataclasses import dataclass, field

from metering.config import MeteringConfig
from metering.errors import JournalUnavailable
from metering.event import UsageEvent, encode_event
from metering.journal import JournalWriter
from metering.ledger import Ledger
from metering.pricebook import worst_case_nanos
from tests.metering.simulator.clock import Clock
from tests.metering.simulator.database import LedgerTail
from tests.metering.simulator.disk import FaultyDisk
from tests.metering.simulator.law import require
from tests.metering.simulator.market import BOOK, LATE_BOOK, TENANTS, random_event

HOLD_US = 120_000_000


@dataclass
class Promises:
    """What the outside world was told, and what really happened: the simulator's memory, beyond all faults."""

    records: dict[str, bytes] = field(default_factory=dict)  # every request that generated, and its one record
    generated: dict[str, int] = field(default_factory=dict)  # the engine's tally
    acknowledged: set[str] = field(default_factory=set)
    conflicting: set[str] = field(default_factory=set)  # ids under which a second body was sent
    refused: set[bytes] = field(default_factory=set)  # those second bodies, where they became durable
    flights: dict[str, int | None] = field(default_factory=dict)  # id -> worker that has it queued, None: orphan
    topped_up: int = sum(TENANTS.values())
    requests: int = 0


class Gateways:
    """Some workers over one disk and one promise book."""

    def __init__(
        self,
        config: MeteringConfig,
        disk: FaultyDisk,
        tail: LedgerTail,
        clock: Clock,
        dice: random.Random,
        count: int,
    ) -> None:
        self._config, self._disk, self._tail, self._clock, self._dice = config, disk, tail, clock, dice
        self.promises = Promises()
        self.writers: list[JournalWriter | None] = [None] * count
        self._waiting: list[list[tuple[str, bytes, Future[None]]]] = [[] for _ in range(count)]

    def request(self, ledger: Ledger) -> str:
        """One request from hold to sealed record; the outcome."""
        promises, dice = self.promises, self._dice
        writer = self.writers[dice.randrange(len(self.writers))]
        if writer is not None and not writer.can_accept():
            return "503: the journal cannot take events"
        require(writer is None or self._disk.space != "low", "admission_stops_first", "admitted although space is low")
        promises.requests += 1
        tenant = dice.choice(list(TENANTS))
        event = random_event(dice, promises.requests, self._clock.now_us(), tenant)
        if dice.random() > 0.06:  # else the hold is lost before the request: a replayed or abandoned admission
            book = BOOK if event.price_book == BOOK.digest else LATE_BOOK
            amount = worst_case_nanos(book, event.adapter, event.prompt_tokens, event.completion_tokens + 5)
            if dice.random() < 0.1:
                amount //= 3  # an estimate that was too low
            status = ledger.hold(event.id, tenant, amount, self._clock.now_us() + HOLD_US)
            if not status.accepted:
                return str(status)
            self._tail.holds.append(event.id)
            if dice.random() < 0.1:
                return "killed after the hold"
        self.seal(event)
        return event.id[-4:]

    def seal(self, event: UsageEvent) -> None:
        self.promises.records[event.id] = encode_event(event)
        self.promises.generated[event.id] = event.completion_tokens
        self.promises.flights[event.id] = None

    def append(self, worker: int, name: str, record: bytes) -> str:
        """Queue a record with a worker (which starts when it is down)."""
        try:
            writer = self.writers[worker] or self._start(worker)
            future = writer.append(record)
        except JournalUnavailable as error:
            return str(error)
        self._waiting[worker].append((name, record, future))
        if name in self.promises.flights:
            self.promises.flights[name] = worker
        return name[-4:]

    def pump(self, worker: int) -> int:
        """The worker's writer takes a turn; clients whose record is durable get their last byte. How many."""
        writer = self.writers[worker]
        if writer is None:
            return 0
        writer._commit_waiting()
        waiting, self._waiting[worker] = self._waiting[worker], []
        for name, record, future in waiting:
            if future.exception(timeout=0) is not None:
                if name in self.promises.flights:
                    self.promises.flights[name] = None
            elif record == self.promises.records[name]:
                self.promises.acknowledged.add(name)
                self.promises.flights.pop(name, None)
            else:
                self.promises.refused.add(record)
        return len(waiting)

    def crash(self, worker: int) -> None:
        """kill -9: its queue is gone, its lock is free, what it wrote stays in the system's cache."""
        writer, self.writers[worker] = self.writers[worker], None
        if writer is not None and writer._segment is not None:
            writer._segment.close()
        for name, _, _ in self._waiting[worker]:
            if name in self.promises.flights:
                self.promises.flights[name] = None
        self._waiting[worker] = []

    def orphans(self) -> list[str]:
        return [name for name, worker in self.promises.flights.items() if worker is None]

    def close(self) -> None:
        for worker, writer in enumerate(self.writers):
            if writer is not None:
                self.pump(worker)
                writer.close()
                writer._abandon(seal=True)  # what its thread does last
                self.writers[worker] = None

    def _start(self, worker: int) -> JournalWriter:
        writer = self.writers[worker] = JournalWriter(self._config, f"gateway-{worker}", self._disk)
        return writer
