"""One simulated run: a seed decides every step, every fault and every amount."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.metering.simulator.clock import Clock, virtual_time
from tests.metering.simulator.database import Crash, CrashingStore, LedgerTail
from tests.metering.simulator.disk import FaultyDisk
from tests.metering.simulator.gateway import Gateways
from tests.metering.simulator.invariants import Watch
from tests.metering.simulator.law import Broken, require
from tests.metering.simulator.market import LATE_BOOK, TENANTS, copy_template
from tests.metering.simulator.settlers import Settlers

WORKERS = 2
SEGMENT_BYTES = 64 * 1024
WEIGHTS = {
    "request": 10, "append": 10, "pump": 8, "settle": 6, "tick": 4, "advance": 4, "duplicate": 2, "conflict": 1,
    "crash_worker": 2, "crash_settler": 3, "cut_power": 1, "tear": 2, "fill_disk": 2, "fail_sync": 1, "skew": 2,
    "top_up": 1, "receipt": 2, "document": 1,
}  # fmt: skip
BUS_WEIGHTS = WEIGHTS | {"forward": 12, "settle": 10, "tidy_journal": 2, "kill_bus": 2}


class World:
    """All parts of one machine, and what a step does to them."""

    def __init__(self, seed: int, root: Path) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        on_bus = seed % 3 == 0  # a third of the runs: a bus and two settlers
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
        self.settlers = Settlers(self.config, self.bus, self.ledger_tail, self.dice)
        self.trace: list[str] = []

    def step(self) -> None:
        """One action, drawn by weight, then every invariant."""
        weights = BUS_WEIGHTS if self.bus else WEIGHTS
        name = self.dice.choices(list(weights), list(weights.values()))[0]
        outcome = getattr(self, f"_{name}")()
        self.trace.append(f"{name}: {outcome}")
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
        for _ in range(3):
            self._forward_all()
            self.settlers.act(lambda settler: settler.tick())
            self.look()
            self.clock.true_us += 30_000_000
        self.watch.look_at_end(SqliteConnection(self._observer))
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
        verify_receipt(build_receipt(self.ledger, name), self.config.log_public_key_path.read_text())
        return name[-4:]

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


class Failure(AssertionError):
    """A run that broke a law: the law's name, what was found, and the command that replays it."""

    def __init__(self, seed: int, error: BaseException, trace: list[str]) -> None:
        self.law = error.name if isinstance(error, Broken) else type(error).__name__
        self.trace = trace
        replay = f"replay: python -m tests.metering.simulator --seed {seed}"
        super().__init__(f"seed {seed}, step {len(trace)}: {type(error).__name__} {error}\n{replay}")


@contextmanager
def world(seed: int, root: Path) -> Iterator[World]:
    """A fresh world of that seed under `root`, with its time and its stores in place of the real ones."""
    made = World(seed, root)
    with virtual_time(made.clock, made.dice), made.settlers.in_place():
        try:
            yield made
        finally:
            made.close()


def run(seed: int, root: Path, steps: int = 40) -> list[str]:
    """Simulate one seed; its trace. Raises Failure when a law breaks or the code raises what it should not."""
    with world(seed, root) as simulated:
        try:
            for _ in range(steps):
                simulated.step()
            simulated.quiesce()
        except (Exception, Crash) as error:
            raise Failure(seed, error, simulated.trace) from error
        return simulated.trace
