"""One simulated run: a seed decides every step, every fault and every amount."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import apsw

from metering import ledger as ledger_module
from metering.check import run_checks
from metering.config import MeteringConfig
from metering.errors import LedgerUnavailable
from metering.event import decode_event, encode_event
from metering.ledger import Ledger
from metering.receipt import build_receipt, verify_receipt
from metering.settler import Settler
from metering.store import Store
from metering.store_sqlite import SqliteConnection, SqliteStore
from tests.metering.simulator.clock import Clock, virtual_time
from tests.metering.simulator.database import Crash, CrashingStore
from tests.metering.simulator.disk import FaultyDisk
from tests.metering.simulator.gateway import Gateways
from tests.metering.simulator.invariants import Broken, Watch, require
from tests.metering.simulator.market import LATE_BOOK, TENANTS, copy_template

WORKERS = 2
SEGMENT_BYTES = 64 * 1024
WEIGHTS = {
    "request": 10, "append": 10, "pump": 8, "settle": 6, "tick": 4, "advance": 4, "duplicate": 2, "conflict": 1,
    "crash_worker": 2, "crash_settler": 3, "cut_power": 1, "tear": 2, "fill_disk": 1, "fail_sync": 1, "skew": 2,
    "top_up": 1, "receipt": 2, "document": 1,
}  # fmt: skip


class World:
    """All parts of one machine, and what a step does to them."""

    def __init__(self, seed: int, root: Path) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.config = MeteringConfig(
            data_dir=root / f"run-{seed}", segment_bytes=SEGMENT_BYTES, min_free_bytes=1, window_seconds=20.0,
            batch_size=self.dice.choice((2, 5, 16)), journal_retention_seconds=60.0,
        )  # fmt: skip
        copy_template(root, self.config.data_dir)
        self.disk = FaultyDisk(self.clock, self.dice)
        self.gateways = Gateways(self.config, self.disk, self.clock, self.dice, WORKERS)
        self.promises = self.gateways.promises
        self.store = CrashingStore(SqliteStore(self.config.ledger_path), self.dice)
        self.ledger = Ledger(self.store, self.config.currency)
        self.watch = Watch(self.config, self.promises)
        self._observer = apsw.Connection(str(self.config.ledger_path))  # writes nothing, so it sees every change
        self._version = -1
        self.settler: Settler | None = None
        self.settler_store: CrashingStore | None = None
        self.trace: list[str] = []

    def step(self) -> None:
        """One action, drawn by weight, then every invariant."""
        name = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
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
        self.disk.full, self.disk.failing_syncs, self.clock.skew_us = False, 0, max(0, self.clock.skew_us)
        self.ledger.put_document("price_book", LATE_BOOK.encode())
        while orphans := self.gateways.orphans():
            for name in orphans:
                self.gateways.append(0, name, self.promises.records[name])
            self.clock.true_us += 2_000_000
            self.gateways.pump(0)
        self.gateways.close()
        self.clock.true_us += 200_000_000  # beyond every hold and window
        for _ in range(3):
            self._with_settler(lambda settler: settler.tick())
            self.look()
            self.clock.true_us += 30_000_000
        self.watch.look_at_end(SqliteConnection(self._observer))
        report = run_checks(self.config, self.ledger, self.promises.generated)
        findings = [f for f in report.findings if not (f.name == "quarantined" and "event_conflict" in f.detail)]
        require(not findings, "check_is_clean", findings)

    def close(self) -> None:
        for worker in range(WORKERS):
            self.gateways.crash(worker)
        self._drop_settler()
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
        return self._with_settler(lambda settler: settler.step())

    def _tick(self) -> str:
        return self._with_settler(lambda settler: settler.tick())

    def _crash_settler(self) -> str:
        """Its next transaction ends at a moment of the dice's choosing."""
        if self.settler_store is None:
            return "it is down"
        return f"{self.settler_store.arm()}, {self._settle()}"

    def _crash_worker(self) -> str:
        worker = self.dice.randrange(WORKERS)
        self.gateways.crash(worker)
        return str(worker)

    def _cut_power(self) -> str:
        for worker in range(WORKERS):
            self.gateways.crash(worker)
        self._drop_settler()
        self.disk.cut_power()
        return "all is down"

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
        self.disk.full = not self.disk.full
        return "full" if self.disk.full else "free"

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

    def _with_settler(self, act: Callable[[Settler], object]) -> str:
        """Start the settler when it is down, let it act, and bury it when it crashes."""
        try:
            if self.settler is None:
                self.settler = Settler(self.config)
            return str(act(self.settler))
        except Crash:
            self._drop_settler()
            return "crashed"
        except LedgerUnavailable as error:
            return str(error)

    def _drop_settler(self) -> None:
        if self.settler is not None:
            self.settler.close()
        self.settler = self.settler_store = None

    def open_settler_store(self, config: MeteringConfig) -> Store:
        self.settler_store = CrashingStore(SqliteStore(config.ledger_path), self.dice)
        return self.settler_store


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
    with virtual_time(made.clock, made.dice), mock.patch.object(ledger_module, "open_store", made.open_settler_store):
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
