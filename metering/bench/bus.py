"""Events a second through NATS: from the journal to the stream, and from there to settlers on PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

from metering.bench.market import encode_all, make_events, place_holds, prepare, write_journal
from metering.bench.nats_server import NatsServer
from metering.config import MeteringConfig
from metering.forwarder import Forwarder
from metering.ledger import Ledger
from metering.nats_stream import connected

SETTLERS = (1, 2)


def bus_rates(config: MeteringConfig, store: Path, events: int, rounds: int) -> dict[str, list[float]]:
    """A round is a stream of its own: all its events are forwarded, then settled by processes that are ready before
    the clock starts. Every event has a hold that is posted."""
    server = NatsServer(store)
    server.start()
    ledger = prepare(config)
    rates: dict[str, list[float]] = {"forwarded": [], **{f"settlers_{count}": [] for count in SETTLERS}}
    first, documents = 0, _documents(ledger)
    for number in range(rounds):
        for count in SETTLERS:
            run = f"{number}-{count}"
            here = dataclasses.replace(config, events_url=server.url, events_stream=f"bench-{run}")
            made = list(make_events(first, events))
            place_holds(ledger, made)
            write_journal(here, encode_all(made))
            first += events
            rates["forwarded"].append(asyncio.run(_forward(here)))
            rates[f"settlers_{count}"].append(_settle(here, ledger, count, first + documents))
            for segment in here.journal_dir.iterdir():
                segment.unlink()
    ledger.close()
    server.kill()
    return rates


def _documents(ledger: Ledger) -> int:
    with ledger.store.read() as connection:
        return connection.execute("SELECT count(*) FROM documents")[0][0]


async def _forward(config: MeteringConfig) -> float:
    """Events a second of one forwarder, each acknowledged by the server."""
    forwarder, published = Forwarder(config), 0
    async with connected(config, "bench") as client:
        await forwarder.attach(client)
        began = time.perf_counter()
        while count := await forwarder.publish():
            published += count
        seconds = time.perf_counter() - began
    forwarder.close()
    return published / seconds


def _settle(config: MeteringConfig, ledger: Ledger, count: int, until: int) -> float:
    """Events a second of `count` settler processes, until the log has `until` leaves."""
    environment = {
        **os.environ,
        "OPENLEDGER_LEDGER": config.ledger_url,
        "OPENLEDGER_EVENTS": config.events_url,
        "OPENLEDGER_EVENTS_STREAM": config.events_stream,
    }
    command = [sys.executable, "-m", "metering.settler", "--data", str(config.data_dir)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    began, before = time.perf_counter(), _leaves(ledger)
    while (after := _leaves(ledger)) < until:
        time.sleep(0.005)
    rate = (after - before) / (time.perf_counter() - began)
    for process in processes:
        process.terminate()
    for process in processes:
        process.communicate()
    return rate


def _leaves(ledger: Ledger) -> int:
    """Of the log: one for each settled event, and one for each document."""
    with ledger.store.read() as connection:
        return connection.execute("SELECT coalesce(max(size), 0) FROM log_checkpoints")[0][0]
