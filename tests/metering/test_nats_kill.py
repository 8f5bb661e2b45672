"""kill -9 of settlers, forwarder and nats-server: journal to NATS to three settlers on PostgreSQL, exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial

import pytest

from metering.check import run_checks
from metering.config import MeteringConfig
from metering.event import encode_event
from tests.metering.bus import on_bus, publish, settled, wait_for
from tests.metering.conftest import fresh_ledger_url

SETTLERS = 3


@pytest.fixture
def ledger_url(request):
    return fresh_ledger_url("postgresql", request)


@pytest.fixture
def config(config, nats):
    return on_bus(config, nats.url, redeliver_seconds=2.0, window_seconds=0.5)


@dataclass
class Processes:
    """The processes of one deployment, each started again when it is gone."""

    config: MeteringConfig
    running: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Returns when it is ready. Its errors are kept in `<name>.log`."""
        module = name.rstrip("0123456789")
        environment = {
            **os.environ,
            "OPENLEDGER_LEDGER": self.config.ledger_url,
            "OPENLEDGER_EVENTS": self.config.events_url,
            "OPENLEDGER_EVENTS_STREAM": self.config.events_stream,
            "OPENLEDGER_REDELIVER_SECONDS": str(self.config.redeliver_seconds),
            "OPENLEDGER_WINDOW_SECONDS": str(self.config.window_seconds),
        }
        command = [sys.executable, "-m", f"metering.{module}", "--data", str(self.config.data_dir)]
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == f"{module}: ready\n", self.log(name).read_text()
        self.running[name] = process

    def log(self, name: str):
        return self.config.data_dir.parent / f"{name}.log"

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running.pop(name).communicate()

    def stop_all(self) -> list[int]:
        """SIGTERM to all; their exit statuses."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        statuses = []
        for process in self.running.values():
            process.communicate(timeout=60)
            statuses.append(process.returncode)
        self.running.clear()
        return statuses


@pytest.fixture
def processes(market, config):
    made = Processes(config)
    for name in ("forwarder", *[f"settler{i}" for i in range(SETTLERS)]):
        made.start(name)
    yield made
    for name in list(made.running):
        made.kill(name)


def test_kill_anything_at_any_moment(market, nats, processes):
    """Settlers, forwarder and server are killed while events flow; duplicates and reordered events come in between."""
    dice, events = random.Random(11), []
    victims = ["settler0", "forwarder", "nats", "settler1", "nats", "settler2"]
    for victim in victims:
        events += market.serve(100)
        again = [encode_event(event) for event in dice.sample(events, 20)]  # other order, past the server's memory
        publish(processes.config, *again)
        wait_for(partial(has_settled, market, len(events) - 99))  # in the middle of it
        if victim == "nats":
            nats.kill()
            nats.start()
        else:
            processes.kill(victim)
            processes.start(victim)
    wait_for(lambda: settled(market.ledger) == len(events))
    assert processes.stop_all() == [0] * (SETTLERS + 1)
    report = run_checks(processes.config, market.ledger, {event.id: event.completion_tokens for event in events})
    assert report.clean, report.findings
    assert report.totals["metered_requests"] == len(victims) * 100
    assert market.ledger.open_holds() == []


def has_settled(market, count: int) -> bool:
    return settled(market.ledger) >= count


def test_a_frozen_settler_holds_nobody_up(market, processes):
    """SIGSTOP: what it had fetched goes to others, what it does after SIGCONT are duplicates."""
    events = market.serve(50)
    wait_for(lambda: settled(market.ledger) > 0)
    frozen = processes.running["settler0"]
    frozen.send_signal(signal.SIGSTOP)
    events += market.serve(50)
    wait_for(lambda: settled(market.ledger) == len(events))
    frozen.send_signal(signal.SIGCONT)
    assert processes.stop_all() == [0] * (SETTLERS + 1)
    assert run_checks(processes.config, market.ledger).clean


def test_an_outage_of_the_bus_stops_no_request(market, nats, processes):
    """The journal takes events all the while; the forwarder says what is wrong, tries again, and everything settles."""
    nats.kill()
    market.serve(30)
    wait_for(lambda: "cannot reach" in processes.log("forwarder").read_text())
    nats.start()
    wait_for(lambda: settled(market.ledger) == 30)
    assert processes.stop_all() == [0] * (SETTLERS + 1)
    assert run_checks(processes.config, market.ledger).clean
