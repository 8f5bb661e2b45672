"""The forwarder process: `python -m metering.forwarder --data DIR` publishes the journal to the event bus.

A record is durable in the journal before its answer's last byte; the forwarder only carries it on, as often as needed.
It advances on the server's acknowledgement, and keeps a segment until settlers have acknowledged all of it: whatever
the bus loses is published again. Its exit status: see metering.process; 3 when the journal has another forwarder.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import time
from contextlib import suppress
from itertools import takewhile

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from metering.canonical import digest
from metering.config import MeteringConfig
from metering.errors import EventsError, EventsUnavailable, ForwarderRunning
from metering.forwarder_state import load_state
from metering.journal_reader import JournalReader
from metering.nats_publisher import Message, Publisher
from metering.nats_stream import CONSUMER, NATS_ERRORS, connected, ensure_stream, reason, shown, subject
from metering.process import Process, run_process
from metering.source import SourceRecord

LOCK = "forwarder.lock"
REQUEST_ID = re.compile(r"req_[0-9a-f]{32}\Z")
HEADER_BYTES = 256  # of a message, at most
TIDY_SECONDS = 2.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
LAST_SECONDS = 5.0  # told to stop, it goes on for at most this long with what waits


class Forwarder:
    """Publishes one journal directory. One per directory."""

    def __init__(self, config: MeteringConfig) -> None:
        """Take the directory's lock (ForwarderRunning when another has it)."""
        self._config = config
        self._directory = config.journal_dir
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ForwarderRunning(f"another forwarder publishes {self._directory}") from None
        self.state = load_state(self._directory)
        self._reader = JournalReader(self._directory)
        self._tidy_at = 0.0

    async def attach(self, client: Client) -> None:
        """Use a new connection. Publishing starts over when behind it is another stream or server process: one that was
        killed may have lost what it had acknowledged, since it syncs its files every two minutes by default."""
        self._client = client
        self._stream = client.jetstream()
        self._publisher = Publisher(client, self._config.events_stream, subject(self._config))
        await self._publisher.open()
        info = await ensure_stream(self._stream, self._config)
        created, server = str(info.created), str(client._server_info["server_id"])
        if (created, server) != (self.state.stream, self.state.server):
            self.state.start_over(created, server)
            self._reader = JournalReader(self._directory)

    async def publish(self) -> int:
        """Publish one batch; how many records the stream has now. EventsUnavailable when it refuses some."""
        records = self._reader.read(self.state.cursors, self._config.batch_size)
        if not records:
            return 0
        fitting = list(takewhile(self._fits, records))
        if not fitting:
            size, limit = len(records[0].payload), self._client.max_payload
            raise EventsUnavailable(f"a record of {size} bytes, the server's max_payload is {limit}")
        messages = [Message(message_id(record.payload), record.payload) for record in fitting]
        answers = await self._publisher.publish(messages)
        last, failure = self.state.last_sequence, ""
        for record, answer in zip(fitting, answers, strict=True):
            if answer.error is not None:
                failure = f"stream {self._config.events_stream}: {answer.error.description}"
                break
            if answer.seq <= last and not answer.duplicate:
                self.state.stream = ""
                failure = f"stream {self._config.events_stream} was replaced"
                break
            segment, next_offset = record.position
            self.state.note(segment, next_offset, answer.seq)
            self.state.published += 1
            self.state.duplicates += answer.duplicate
        self.state.failure = failure
        self.state.save(self._directory)
        if failure:
            raise EventsUnavailable(failure)
        return len(fitting)

    async def tidy(self) -> list[str]:
        """Learn what is settled, remove segments of which all is (after their retention); what is damaged."""
        floor = await self._settled_up_to()
        created = str((await ensure_stream(self._stream, self._config)).created)
        if created != self.state.stream:  # asked after the floor, which is thus this stream's
            raise EventsUnavailable(f"stream {self._config.events_stream} was replaced")
        self.state.settle(floor)
        damaged = self._reader.seal_orphans()
        self._reader.remove_settled(self.state.settled_cursors, self._config.journal_retention_seconds)
        self.state.forget(set(self._reader.segments()))
        self.state.failure = "; ".join(f"journal damaged: {damage}" for damage in damaged)
        self.state.save(self._directory)
        return [str(damage) for damage in damaged]

    async def work(self, process: Process) -> None:
        """Publish and tidy until told to stop (then what still waits), or EventsUnavailable: the connection is lost."""
        last = float("inf")
        while time.monotonic() < last:
            if self._client.is_closed:
                raise EventsUnavailable(f"lost {shown(self._config)}")
            if time.monotonic() - self._tidy_at > TIDY_SECONDS:
                self._tidy_at = time.monotonic()
                await self.tidy()
            if await self.publish():
                continue
            if process.stop.is_set():
                return
            await asyncio.sleep(self._config.poll_seconds)
            if process.stop.is_set():
                last = min(last, time.monotonic() + LAST_SECONDS)

    def fail(self, failure: str) -> None:
        """Note a failure, for metrics."""
        self.state.failures += 1
        self.state.failure = failure
        with suppress(OSError):
            self.state.save(self._directory)

    def close(self) -> None:
        os.close(self._lock)

    async def _settled_up_to(self) -> int:
        """The sequence number up to which settlers have acknowledged everything."""
        try:
            info = await self._stream.consumer_info(self._config.events_stream, CONSUMER)
        except NotFoundError:
            return 0  # no settler was ever started
        self.state.unsettled = (info.num_pending or 0) + (info.num_ack_pending or 0)
        return info.ack_floor.stream_seq if info.ack_floor else 0

    def _fits(self, record: SourceRecord) -> bool:
        return len(record.payload) <= self._client.max_payload - HEADER_BYTES


class _Named(msgspec.Struct):
    """What of an event says which one it is."""

    id: str


def message_id(record: bytes) -> str:
    """Nats-Msg-Id: the event's id, and 128 bits of the record's digest.

    The same event again has the same id and is dropped by the server; another body under the same id has not, and goes
    to the ledger, which names the conflict.
    """
    body = digest(record)[7:39]
    try:
        name = msgspec.json.decode(record, type=_Named).id
    except msgspec.MsgspecError:
        return body
    return f"{name}/{body}" if REQUEST_ID.match(name) else body


async def forward(process: Process) -> None:
    """Forward until told to stop; a lost bus is tried again, with growing pauses. EventsError when it never was."""
    forwarder, where = Forwarder(process.config), shown(process.config)
    started, pause = False, FIRST_PAUSE_SECONDS
    try:
        while True:
            before = forwarder.state.published
            try:
                async with connected(process.config, "forwarder") as client:
                    await forwarder.attach(client)
                    if not started:
                        process.ready()
                    started = True
                    await forwarder.work(process)
                    return
            except (EventsError, *NATS_ERRORS) as error:
                known = error if isinstance(error, EventsError) else EventsUnavailable(f"{where}: {reason(error)}")
                if not started:
                    raise known from error
                if str(known) != forwarder.state.failure:
                    process.say(f"{known}; trying again")
                forwarder.fail(str(known))
            if forwarder.state.published > before:
                pause = FIRST_PAUSE_SECONDS
            if await asyncio.to_thread(process.stop.wait, pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    finally:
        forwarder.close()


def main(arguments: list[str] | None = None) -> int:
    return run_process("forwarder", lambda process: asyncio.run(forward(process)), arguments, needs_bus=True)


if __name__ == "__main__":
    raise SystemExit(main())
