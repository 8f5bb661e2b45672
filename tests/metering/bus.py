"""What the tests of the event bus share: a market on NATS and PostgreSQL, forwarding and settling in this process."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from nats.js import JetStreamContext

from metering.config import MeteringConfig
from metering.forwarder import Forwarder
from metering.forwarder_state import ForwarderState
from metering.ledger import Ledger
from metering.nats_stream import connected
from metering.settlement import SettledBatch
from metering.settler import Settler

PATIENCE_SECONDS = 60.0  # for what happens at once on an idle machine


def on_bus(config: MeteringConfig, url: str, **changes: Any) -> MeteringConfig:
    """The same settings with events going through a stream of its own."""
    return dataclasses.replace(config, events_url=url, events_stream=f"test-{uuid.uuid4().hex}", **changes)


def forward(config: MeteringConfig) -> ForwarderState:
    """Publish what the journal holds, as one run of a forwarder; what it knows then."""

    async def once() -> ForwarderState:
        forwarder = Forwarder(config)
        try:
            async with connected(config, "forwarder") as client:
                await forwarder.attach(client)
                while await forwarder.publish():
                    pass
                await forwarder.tidy()
        finally:
            forwarder.close()
        return forwarder.state

    return asyncio.run(once())


def with_stream(config: MeteringConfig, act: Callable[[JetStreamContext], Coroutine[Any, Any, Any]]) -> Any:
    """Do something to the stream from outside."""

    async def once() -> Any:
        async with connected(config, "test") as client:
            return await act(client.jetstream())

    return asyncio.run(once())


def publish(config: MeteringConfig, *records: bytes) -> None:
    """Publish without message ids: what the server's finite memory of them amounts to."""

    async def once(stream: JetStreamContext) -> None:
        for record in records:
            await stream.publish(f"{config.events_stream}.usage", record)

    with_stream(config, once)


def settle(ledger: Ledger, count: int, *settlers: Settler) -> SettledBatch:
    """Let the settlers step in turns until the ledger has `count` events in all; what they did."""
    total, deadline = SettledBatch(), time.monotonic() + PATIENCE_SECONDS
    while settled(ledger) < count:
        assert time.monotonic() < deadline, f"{settled(ledger)} of {count} settled; {total}"
        for settler in settlers:
            total += settler.step()
    return total


def wait_for(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def settled(ledger: Ledger) -> int:
    with ledger.store.read() as connection:
        return connection.execute("SELECT count(*) FROM usage")[0][0]
