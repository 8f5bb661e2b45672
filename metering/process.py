"""The processes of the meter: `python -m metering.settler` and `python -m metering.forwarder`, both with `--data DIR`.

Exit status: 0 after SIGTERM or SIGINT, 2 for settings that cannot work, 3 when another process does the same work
already, 4 when the ledger or the event bus cannot be reached (at start; later the work is retried).
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from metering.config import MeteringConfig
from metering.errors import EventsError, ForwarderRunning, LedgerElsewhere, LedgerUnavailable, SettlerRunning

EXIT_SETTINGS, EXIT_RUNNING, EXIT_UNREACHABLE = 2, 3, 4


class Process:
    """What a process is given: its settings, the wish to stop, and a way to speak."""

    def __init__(self, name: str, config: MeteringConfig, stop: threading.Event) -> None:
        self.config = config
        self.stop = stop
        self._name = name

    def ready(self) -> None:
        """Whoever started the process may go on."""
        calm_collector()
        print(f"{self._name}: ready", flush=True)

    def say(self, text: str) -> None:
        """One line for the operator."""
        print(f"{self._name}: {text}", file=sys.stderr, flush=True)


def calm_collector() -> None:
    """Let the garbage collector leave alone what has been imported, and look for cycles seldom: the meter makes none to
    speak of, and the walks over a batch's tuples are 8% of a settler's processor time (measured on SQLite).
    """
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


def run_process(
    name: str, work: Callable[[Process], None], arguments: list[str] | None = None, *, needs_bus: bool = False
) -> int:
    """Read the settings, do the work until a signal; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m metering.{name}")
    parser.add_argument("--data", type=Path, required=True, help="data directory")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        process = Process(name, MeteringConfig.from_environment(options.data, os.environ), stop)
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    if needs_bus and not process.config.events_url:
        process.say("there is no event bus: set OPENLEDGER_EVENTS=nats://host:port")
        return EXIT_SETTINGS
    try:
        work(process)
    except LedgerElsewhere as error:
        process.say(str(error))
        return EXIT_SETTINGS
    except (SettlerRunning, ForwarderRunning) as error:
        process.say(str(error))
        return EXIT_RUNNING
    except (LedgerUnavailable, EventsError) as error:
        process.say(" ".join(str(error).split()))
        return EXIT_UNREACHABLE
    return 0
