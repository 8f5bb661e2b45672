"""Virtual time for the real metering code: every module that asks for the time, a thread or randomness gets ours."""

from __future__ import annotations

import os
import random
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from metering import journal, journal_reader, ledger, settler

START_US = 1_795_000_000_000_000  # 2026-11-18


class Clock:
    """Microseconds since 1970 that move only when the simulator says so; `skew_us` is how wrong the machine's is."""

    def __init__(self) -> None:
        self.true_us = START_US
        self.skew_us = 0

    def now_us(self) -> int:
        return self.true_us + self.skew_us

    def monotonic(self) -> float:
        return self.true_us / 1e6


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
    with (
        mock.patch.multiple(journal, time=times, os=names, threading=threads),
        mock.patch.object(journal_reader, "time", times),
        mock.patch.object(ledger, "now_us", clock.now_us),
        mock.patch.multiple(settler, now_us=clock.now_us, time=times),
    ):
        yield
