"""The bus as a source of events: a durable JetStream consumer that any number of settlers share."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from metering.config import MeteringConfig
from metering.errors import EventsError, EventsUnavailable
from metering.nats_stream import (
    ACKNOWLEDGE,
    CONSUMER,
    GIVE_BACK,
    NATS_ERRORS,
    connected,
    ensure_consumer,
    ensure_stream,
    reason,
    shown,
)
from metering.source import SourceRecord
from metering.store import Connection

AHEAD = 1  # batches fetched while one is settled; many settlers with much in hand would outwait redeliver_seconds
READ_SECONDS = 0.05  # a reader waits so long for the first event
FETCH_SECONDS = 0.5  # a request waits so long on the server
LOOK_SECONDS = 5.0  # without events for so long, the consumer is looked after
RECONNECT_SECONDS = 1.0


class NatsSource:
    """Fetches ahead on a thread of its own; an event is acknowledged when the ledger has it.

    What is not acknowledged within `redeliver_seconds` goes to another settler, which finds it settled or settles it:
    the ledger decides. A lost connection is made anew, meanwhile there are no events and `problems` says why.
    """

    def __init__(self, config: MeteringConfig) -> None:
        """EventsUnavailable or EventsMisconfigured when the first connection fails."""
        self._config = config
        self._fetched: queue.Queue[list[Msg]] = queue.Queue()
        self._unsettled: list[SourceRecord] = []
        self._problem = ""
        self._closing = False
        self._client: Client | None = None
        self._loop = asyncio.new_event_loop()
        self._room = asyncio.Semaphore(AHEAD)
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._loop.run_forever, name="events", daemon=True)
        self._thread.start()
        self._work = asyncio.run_coroutine_threadsafe(self._keep_fetching(), self._loop)
        try:
            self._started.result()
        except BaseException:
            self.close()
            raise

    def read(self, limit: int) -> list[SourceRecord]:
        """What was read before and not acknowledged, else what the server gave."""
        if not self._unsettled:
            self._take(READ_SECONDS)
        return self._unsettled[:limit]

    def read_ahead(self, limit: int, beyond: Sequence[SourceRecord]) -> list[SourceRecord]:
        if len(self._unsettled) == len(beyond):
            self._take(0)
        return self._unsettled[len(beyond) : len(beyond) + limit]

    def store_position(self, connection: Connection, records: Sequence[SourceRecord]) -> None:
        """Nothing: a settled event is known by its id."""

    def acknowledge(self, records: Sequence[SourceRecord]) -> None:
        """An acknowledgement that gets lost brings the event again, which then counts as a duplicate."""
        self._unsettled = self._unsettled[len(records) :]
        self._call(self._answer([record.position for record in records], ACKNOWLEDGE))

    def tidy(self) -> None:
        """The journal is looked after where it lies, by its forwarder."""

    def problems(self) -> list[str]:
        return [self._problem] if self._problem else []

    def close(self) -> None:
        """Give back what was not settled, so that another settler has it at once."""
        self._closing = True
        self._loop.call_soon_threadsafe(self._room.release)
        with suppress(*NATS_ERRORS, EventsError):
            self._work.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _take(self, seconds: float) -> None:
        """Add what was fetched to what is unsettled; waits so long for it."""
        with suppress(queue.Empty):
            messages = self._fetched.get(block=seconds > 0, timeout=seconds)
            self._unsettled += [SourceRecord(message.data, message.reply) for message in messages]
            self._loop.call_soon_threadsafe(self._room.release)

    def _call(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _keep_fetching(self) -> None:
        """Until closed; only the first connection may fail for good."""
        while not self._closing:
            try:
                async with connected(self._config, "settler") as client:
                    await self._fetch(client)
            except Exception as error:  # a fault of the library, too, must neither end this nor go unseen
                known = isinstance(error, EventsError)
                self._problem = str(error) if known else f"lost {shown(self._config)}: {reason(error)}; trying again"
                if not self._started.done():
                    self._started.set_exception(error if known else EventsUnavailable(self._problem))
                    return
            finally:
                self._client = None
            if not self._closing:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _fetch(self, client: Client) -> None:
        """Fetch until closed, while the connection lasts and the consumer exists."""
        stream = client.jetstream()
        await ensure_stream(stream, self._config)
        await ensure_consumer(stream, self._config)
        events = await stream.pull_subscribe_bind(CONSUMER, self._config.events_stream)
        self._client, self._problem = client, ""
        if not self._started.done():
            self._started.set_result(None)
        seen = time.monotonic()
        while not client.is_closed:
            await self._room.acquire()
            if self._closing:
                return await self._give_back()
            messages: list[Msg] = []
            try:
                with suppress(asyncio.TimeoutError):
                    messages = await events.fetch(self._config.batch_size, FETCH_SECONDS)
            finally:
                if messages:
                    self._fetched.put(messages)
                    seen = time.monotonic()
                else:  # also when the connection is lost
                    self._room.release()
            if time.monotonic() - seen > LOOK_SECONDS:  # a consumer that was deleted says nothing
                await stream.consumer_info(self._config.events_stream, CONSUMER)
                seen = time.monotonic()
        raise EventsUnavailable(f"lost {shown(self._config)}; trying again")

    async def _answer(self, replies: Sequence[str], answer: bytes) -> None:
        with suppress(*NATS_ERRORS):
            if self._client is not None:
                for reply in replies:
                    await self._client.publish(reply, answer)

    async def _give_back(self) -> None:
        replies = [record.position for record in self._unsettled]
        while not self._fetched.empty():
            replies += [message.reply for message in self._fetched.get()]
        await self._answer(replies, GIVE_BACK)
