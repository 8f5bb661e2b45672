"""Virtual time for the real metering code: every module that asks for the time, a thread or randomness gets ours."""

from __future__ import annotations

import os
import random
import threading
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from unittest import mock

from metering import (
    credit_note,
    dispute,
    invoice_lifecycle,
    journal,
    journal_reader,
    ledger,
    log_key,
    month_end,
    note,
    settler,
)

START_US = 1_795_000_000_000_000  # 2026-11-18
CLOCKS = (credit_note, dispute, invoice_lifecycle, ledger, log_key, month_end, settler)  # have a now_us


class Clock:
    """Microseconds since 1970 that move only when the simulator says so; `skew_us` is how wrong the machine's is."""

    def __init__(self) -> None:
        self.true_us = START_US
        self.skew_us = 0

    def now_us(self) -> int:
        return self.true_us + self.skew_us

    def monotonic(self) -> float:
        return self.true_us / 1e6

    def month(self, by_us: int = 0) -> str:
        """`YYYY-MM`, so much later."""
        return f"{datetime.fromtimestamp((self.true_us + by_us) / 1e6, UTC):%Y-%m}"

    def to_end_of_month(self, by_us: int) -> None:
        """Forward to so long after the month's end; nowhere when that is in the past."""
        first = datetime.strptime(self.month(), "%Y-%m").replace(tzinfo=UTC)
        end = (first + timedelta(days=31)).replace(day=1)
        self.true_us = max(self.true_us, int(end.timestamp()) * 1_000_000 + by_us)


class NoThread:
    """The journal's writer thread, which the scheduler plays itself."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...

    def join(self) -> None: ...


@contextmanager
def virtual_time(clock: Clock, dice: random.Random) -> Iterator[None]:
    """While entered, the metering code runs on `clock`, without threads, and draws names from `dice`."""
    times = types.SimpleNamespace(
        time=lambda: clock.now_us() / 1e6,
        time_ns=lambda: clock.now_us() * 1000,
        monotonic=clock.monotonic,
    )
    names = types.SimpleNamespace(urandom=dice.randbytes, strerror=os.strerror)
    threads = types.SimpleNamespace(Condition=threading.Condition, Thread=NoThread)
    keys = types.SimpleNamespace(**{**vars(os), "urandom": dice.randbytes})
    with ExitStack() as stack:
        for module in CLOCKS:
            stack.enter_context(mock.patch.object(module, "now_us", clock.now_us))
        stack.enter_context(mock.patch.multiple(journal, time=times, os=names, threading=threads))
        stack.enter_context(mock.patch.object(journal_reader, "time", times))
        stack.enter_context(mock.patch.object(settler, "time", times))
        stack.enter_context(mock.patch.object(note, "os", keys))
        yield
