"""One simulated run: a seed decides every step, every fault and every amount."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import apsw

from metering.check import run_checks
from metering.config import MeteringConfig
from metering.event import decode_event, encode_event
from metering.forwarder_state import FILE as FORWARDER_FILE
from metering.ledger import Ledger
from metering.receipt import build_receipt, verify_receipt
from metering.store_sqlite import SqliteConnection, SqliteStore
from tests.metering.simulator.bus import Bus, SimulatedForwarder
from tests.metering.simulator.clock import Clock
from tests.metering.simulator.database import Crash, CrashingStore, LedgerTail
from tests.metering.simulator.disk import FaultyDisk
from tests.metering.simulator.gateway import Gateways
from tests.metering.simulator.invariants import Watch
from tests.metering.simulator.law import require
from tests.metering.simulator.market import LATE_BOOK, PAYEES, TENANTS, copy_template
from tests.metering.simulator.office import Office
from tests.metering.simulator.settlers import Settlers

WORKERS = 2
SEGMENT_BYTES = 64 * 1024
CLOSING_US = 60_000_000  # how long after its end a month is closed
WEIGHTS = {
    "request": 10, "append": 10, "pump": 8, "settle": 6, "tick": 4, "advance": 4, "duplicate": 2, "conflict": 1,
    "crash_worker": 2, "crash_settler": 3, "cut_power": 1, "tear": 2, "fill_disk": 2, "fail_sync": 1, "skew": 2,
    "top_up": 1, "receipt": 2, "document": 1, "month": 1, "rotate_key": 1,
}  # fmt: skip
BUS_WEIGHTS = {"forward": 12, "settle": 10, "tidy_journal": 2, "kill_bus": 2}
OFFICE_WEIGHTS = {"dispute": 6, "resolve": 4, "invoice": 6, "withdraw": 1, "month": 3, "top_up": 2}
WARM_UP = 6  # requests that are paid for before the faults of a run with an office begin


class World:
    """All parts of one machine, and what a step does to them."""

    def __init__(self, seed: int, root: Path) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        on_bus = seed % 3 == 0  # a third of the runs: a bus and two settlers
        self.has_office = seed % 2 == 1  # half of them, on either: disputes, invoices, withdrawals
        self.weights = WEIGHTS | (BUS_WEIGHTS if on_bus else {}) | (OFFICE_WEIGHTS if self.has_office else {})
        self.config = MeteringConfig(
            data_dir=root / f"run-{seed}", segment_bytes=SEGMENT_BYTES, min_free_bytes=2, window_seconds=20.0,
            batch_size=self.dice.choice((2, 5, 16)), journal_retention_seconds=60.0,
            ledger_url="postgresql://simulated" if on_bus else "", events_url="nats://simulated" if on_bus else "",
        )  # fmt: skip
        copy_template(root, self.config.data_dir)
        self.disk = FaultyDisk(self.clock, self.dice)
        self.ledger_tail = LedgerTail()
        self.gateways = Gateways(self.config, self.disk, self.ledger_tail, self.clock, self.dice, WORKERS)
        self.promises = self.gateways.promises
        self.store = CrashingStore(SqliteStore(self.config.ledger_path), self.dice, self.ledger_tail)
        self.ledger = Ledger(self.store, self.config.currency)
        self.bus = Bus(self.clock, self.dice) if on_bus else None
        self.forwarder = SimulatedForwarder(self.config, self.bus, self.dice) if self.bus else None
        self.watch = Watch(self.config, self.promises, self.forwarder)
        self._observer = apsw.Connection(str(self.config.ledger_path))  # writes nothing, so it sees every change
        self._version = -1
        self.office = Office(self.config, self.ledger, self.store, self.dice)
        self.settlers = Settlers(self.config, self.bus, self.ledger_tail, self.dice)
        self.trace: list[str] = []

    def step(self) -> None:
        """One action, drawn by weight, then every invariant."""
        name = self.dice.choices(list(self.weights), list(self.weights.values()))[0]
        outcome = getattr(self, f"_{name}")()
        self.trace.append(f"{name}: {outcome}")
        self.look()

    def warm_up(self) -> None:
        """Some requests are settled, their window is paid, and at times their month is over."""
        for _ in range(WARM_UP):
            self._request()
            self._append()
        for worker in range(WORKERS):
            self.gateways.pump(worker)
        for _ in range(2):
            if self.forwarder:
                self._forward()
            self.clock.true_us += 40_000_000
            self.settlers.act(lambda settler: settler.tick())
        if self.dice.random() < 0.6:
            self._month()
            if self.dice.random() < 0.5:
                self.settlers.act(lambda settler: settler.tick())
            else:
                self.office.close()
                self.clock.skew_us = self.dice.choice((0, -90_000_000))  # the settlers' may be behind the operator's
        self.look()

    def look(self) -> None:
        """Every law; what only the database decides is skipped when nobody has changed it since."""
        version = self._observer.pragma("data_version")
        connection = SqliteConnection(self._observer)
        if version != self._version:
            self.watch.look(connection)
            self._version = version
        self.watch.look_journal(connection)

    def quiesce(self) -> None:
        """The faults end: workers and settler come back, recover, settle and close."""
        self.disk.space, self.disk.failing_syncs, self.clock.skew_us = "free", 0, max(0, self.clock.skew_us)
        self.ledger.put_document("price_book", LATE_BOOK.encode())
        while orphans := self.gateways.orphans():
            for name in orphans:
                self.gateways.append(0, name, self.promises.records[name])
            self.clock.true_us += 2_000_000
            self.gateways.pump(0)
        self.gateways.close()
        self.clock.true_us += 200_000_000  # beyond every hold and window
        running = self.clock.month(-CLOSING_US)
        for _ in range(4):
            self._forward_all()
            self.settlers.act(lambda settler: settler.tick())
            self.look()
            self.clock.true_us += 30_000_000
        self.office.resolve_all()
        self.look()
        self.watch.look_at_end(SqliteConnection(self._observer), running)
        report = run_checks(self.config, self.ledger, self.promises.generated)
        findings = [f for f in report.findings if not (f.name == "quarantined" and "event_conflict" in f.detail)]
        require(not findings, "check_is_clean", findings)

    def close(self) -> None:
        for worker in range(WORKERS):
            self.gateways.crash(worker)
        self.settlers.drop()
        self._observer.close()
        self.store.close()

    def _request(self) -> str:
        return self.gateways.request(self.ledger)

    def _append(self) -> str:
        orphans = self.gateways.orphans()
        if not orphans:
            return "nothing"
        name = self.dice.choice(orphans)
        return self.gateways.append(self.dice.randrange(WORKERS), name, self.promises.records[name])

    def _pump(self) -> str:
        return f"{self.gateways.pump(self.dice.randrange(WORKERS))} acknowledged"

    def _duplicate(self) -> str:
        """A recovery that raced with its worker: the same bytes again, maybe much later."""
        if not self.promises.acknowledged:
            return "nothing"
        name = self.dice.choice(sorted(self.promises.acknowledged))
        return self.gateways.append(self.dice.randrange(WORKERS), name, self.promises.records[name])

    def _conflict(self) -> str:
        """Another body under a settled id: never possible for our gateway, refused all the same."""
        settled = sorted(self.watch.settled)
        if not settled:
            return "nothing"
        name = self.dice.choice(settled)
        event = decode_event(self.promises.records[name])
        self.promises.conflicting.add(name)
        other = dataclasses.replace(event, completion_tokens=event.completion_tokens + 1)
        return self.gateways.append(self.dice.randrange(WORKERS), name, encode_event(other))

    def _settle(self) -> str:
        return self.settlers.act(lambda settler: settler.step())

    def _tick(self) -> str:
        return self.settlers.act(lambda settler: settler.tick())

    def _crash_settler(self) -> str:
        return self.settlers.crash()

    def _crash_worker(self) -> str:
        worker = self.dice.randrange(WORKERS)
        self.gateways.crash(worker)
        return str(worker)

    def _cut_power(self) -> str:
        for worker in range(WORKERS):
            self.gateways.crash(worker)
        self.settlers.drop()
        self.disk.cut_power()
        lost = self.ledger_tail.lose(self.store, self.dice)
        if self.forwarder:
            if self.dice.random() < 0.3:
                (self.config.journal_dir / FORWARDER_FILE).unlink(missing_ok=True)
            self.forwarder.restart()
        return f"all is down, {lost} holds lost"

    def _tear(self) -> str:
        """The power goes between a write and its fdatasync."""
        self.disk.dies_at_sync = True
        try:
            return self._pump()
        except Crash:
            return self._cut_power()
        finally:
            self.disk.dies_at_sync = False

    def _fill_disk(self) -> str:
        """Space goes down in steps: admission stops while what was admitted can still be written."""
        self.disk.space = self.dice.choice(("free", "free", "low", "full"))
        return self.disk.space

    def _fail_sync(self) -> str:
        self.disk.failing_syncs += 1
        return "the next"

    def _skew(self) -> str:
        self.clock.skew_us = self.dice.choice((0, -90_000_000, -1_000, 3_000, 45_000_000))
        return str(self.clock.skew_us)

    def _advance(self) -> str:
        by = self.dice.choice((1_000, 1_500_000, 9_000_000, 40_000_000))
        self.clock.true_us += by
        return str(by)

    def _top_up(self) -> str:
        tenant, amount = self.dice.choice(list(TENANTS)), self.dice.randrange(1, 20_000)
        self.ledger.credit(f"topup/{self.clock.true_us}/{len(self.trace)}", tenant, amount).require()
        self.promises.topped_up += amount
        return f"{tenant} {amount}"

    def _document(self) -> str:
        self.ledger.put_document("price_book", LATE_BOOK.encode())
        return "the late price book"

    def _receipt(self) -> str:
        """A client fetches a receipt: it verifies offline."""
        settled = sorted(self.watch.settled)
        if not settled:
            return "nothing"
        name = self.dice.choice(settled)
        verify_receipt(build_receipt(self.ledger, name), self.watch.keys.published())
        return name[-4:]

    def _month(self) -> str:
        """To about the end of the month, or a minute after it, when its invoices are finalised."""
        self.clock.to_end_of_month(self.dice.choice((-70, -5, 20, 62, 70, 100)) * 1_000_000)
        return f"it is {self.clock.month()}"

    def _dispute(self) -> str:
        return self.office.dispute(self.watch.settled)

    def _resolve(self) -> str:
        return self.office.resolve()

    def _invoice(self) -> str:
        return self.office.invoice(self.clock.month())

    def _withdraw(self) -> str:
        return self.office.withdraw(PAYEES, f"withdrawal/{len(self.trace)}")

    def _rotate_key(self) -> str:
        return self.office.rotate_key()

    def _forward(self) -> str:
        """The forwarder carries on; it may die before it has noted how far it came."""
        assert self.forwarder is not None
        try:
            return f"{self.forwarder.publish()} published"
        except Crash:
            self.forwarder.restart()
            return "crashed"

    def _tidy_journal(self) -> str:
        assert self.forwarder is not None
        return f"{self.forwarder.tidy()} segments removed"

    def _kill_bus(self) -> str:
        assert self.bus is not None
        return f"{self.bus.kill()} events lost"

    def _forward_all(self) -> None:
        """Until the bus is empty and the forwarder has learnt it."""
        while self.forwarder and self.bus:
            self._tidy_journal()
            if not self._forward().startswith("0") or not self.bus.is_empty:
                self.settlers.drain()
                self.clock.true_us += 31_000_000
            else:
                return
