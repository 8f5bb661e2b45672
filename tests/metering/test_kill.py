"""kill -9 of real settlers and journal writers: nothing acknowledged is lost, nothing counts twice."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time

import pytest

from metering.check import run_checks
from metering.settler import Settler

WRITER = """
import dataclasses, pickle, sys
from metering.event import encode_event
from metering.journal import JournalWriter
config, events = pickle.load(sys.stdin.buffer)
writer = JournalWriter(config, "victim")
for event in events:
    writer.append(encode_event(event)).result()
    print(event.id, flush=True)
"""
ROUNDS = 6


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same kills on both stores."""
    return every_store


def start_settler(config) -> subprocess.Popen:
    command = [sys.executable, "-m", "metering.settler", "--data", str(config.data_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(config))


def environment(config) -> dict[str, str]:
    return {**os.environ, "OPENLEDGER_LEDGER": config.ledger_url}


def test_kill_the_settler_at_any_moment(market):
    """Killed in the middle of its work again and again, the settler settles every event exactly once."""
    dice, events = random.Random(5), []
    for _ in range(ROUNDS):
        process = start_settler(market.config)
        assert process.stdout.readline() == "settler: ready\n"
        events += market.serve(120)
        time.sleep(dice.uniform(0.02, 0.09))
        process.kill()
        process.communicate()
    survivor = Settler(market.config)
    survivor.tick()
    survivor.close_window()
    survivor.close()
    report = run_checks(market.config, market.ledger, {event.id: event.completion_tokens for event in events})
    assert report.clean, report.findings
    assert report.totals["metered_requests"] == ROUNDS * 120
    assert market.ledger.open_holds() == []


def test_kill_a_gateway_worker_at_any_moment(market, settler):
    """Every event that a killed writer had acknowledged is settled; what it had not is at most one more."""
    dice = random.Random(7)
    for _ in range(ROUNDS):
        events = [market.event() for _ in range(300)]
        process = subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(pickle.dumps((market.config, events)))
        process.stdin.close()
        acknowledged = [process.stdout.readline().decode().strip() for _ in range(dice.randrange(5, 150))]
        process.kill()
        acknowledged += [line.decode().strip() for line in process.stdout if line.endswith(b"\n")]
        process.wait()
        process.stdout.close()
        settled = settler.drain().settled
        assert all(market.ledger.settled(name) for name in acknowledged)
        assert len(acknowledged) <= settled <= len(acknowledged) + 1
    assert run_checks(market.config, market.ledger).clean


def test_the_settler_stops_cleanly(market):
    """SIGTERM settles what the journal holds and exits 0; a second settler exits 3 with a named error meanwhile."""
    process = start_settler(market.config)
    assert process.stdout.readline() == "settler: ready\n"
    second = start_settler(market.config)
    assert "another settler" in second.communicate(timeout=30)[1]
    assert second.returncode == 3
    market.serve(3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert run_checks(market.config, market.ledger).totals["metered_requests"] == 3
