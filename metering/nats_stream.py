"""The JetStream stream that carries usage events from forwarders to settlers (docs/ARCHITECTURE.md, "Streaming").

One stream per deployment, on file storage, as a work queue: an event stays until a settler acknowledged it, which it
does once the ledger has it. A full stream refuses new events (the journal keeps them), it never drops old ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.errors import NoServersError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError

from metering.config import MeteringConfig
from metering.errors import EventsMisconfigured, EventsUnavailable

CONSUMER = "settlers"
CONNECT_SECONDS = 3
PING_SECONDS = 10  # a server that leaves two unanswered is gone
DUPLICATE_SECONDS = 120.0  # how long the server remembers message ids; the ledger remembers event ids forever
ACK_PENDING = 32_768  # events that all settlers together may hold
ACKNOWLEDGE, GIVE_BACK = b"+ACK", b"-NAK"
NATS_ERRORS = (nats.errors.Error, OSError, asyncio.TimeoutError)


def subject(config: MeteringConfig) -> str:
    return f"{config.events_stream}.usage"


def shown(config: MeteringConfig) -> str:
    """The servers without what a URL may keep secret."""
    return ",".join(
        f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}" for parts in map(urlsplit, config.events_urls)
    )


@asynccontextmanager
async def connected(config: MeteringConfig, name: str) -> AsyncIterator[Client]:
    """A connection that ends when the server does. EventsUnavailable when no server can be reached.

    It is never mended behind our back: whoever connects anew finds out first what the server still has.
    """
    heard: list[Exception] = []

    async def hear(error: Exception) -> None:  # else the library logs it with a traceback
        heard[:] = [error]

    try:
        client = await nats.connect(
            config.events_urls,
            name=f"openledger {name}",
            allow_reconnect=False,
            max_reconnect_attempts=1,  # of each server in turn
            reconnect_time_wait=0,
            connect_timeout=CONNECT_SECONDS,
            ping_interval=PING_SECONDS,
            error_cb=hear,
        )
    except NoServersError:
        raise EventsUnavailable(f"cannot reach {shown(config)}: {reason(heard[0])}") from None
    except NATS_ERRORS as error:
        raise EventsUnavailable(f"cannot reach {shown(config)}: {reason(error)}") from error
    try:
        yield client
    finally:
        if not client.is_closed:
            await client.close()


async def ensure_stream(stream: JetStreamContext, config: MeteringConfig) -> StreamInfo:
    """The stream, made when it is missing. Replicas and limits of an existing one are the operator's choice.

    EventsMisconfigured when it could lose events, EventsUnavailable when JetStream refuses.
    """
    wanted = StreamConfig(
        name=config.events_stream,
        subjects=[subject(config)],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        duplicate_window=DUPLICATE_SECONDS,
    )
    try:
        try:
            info = await stream.stream_info(config.events_stream)
        except NotFoundError:
            info = await stream.add_stream(wanted)
    except NATS_ERRORS as error:
        raise EventsUnavailable(f"{shown(config)} gives no stream {config.events_stream}: {reason(error)}") from error
    for name in ("subjects", "retention", "storage", "discard"):
        found = getattr(info.config, name)
        if found != getattr(wanted, name):
            raise EventsMisconfigured(f"stream {config.events_stream} has {name} {found}, not {getattr(wanted, name)}")
    if info.config.max_age or info.config.no_ack:
        raise EventsMisconfigured(f"stream {config.events_stream} has a max_age or no_ack and could lose events")
    return info


async def ensure_consumer(stream: JetStreamContext, config: MeteringConfig) -> None:
    """The durable pull consumer that all settlers share: explicit acknowledgement, redelivery without end."""
    wanted = ConsumerConfig(
        durable_name=CONSUMER,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=config.redeliver_seconds,
        max_deliver=-1,
        max_ack_pending=ACK_PENDING,
    )
    try:
        await stream.add_consumer(config.events_stream, wanted)
    except NATS_ERRORS as error:
        raise EventsUnavailable(f"{shown(config)} gives no consumer {CONSUMER}: {reason(error)}") from error


async def probe(config: MeteringConfig) -> None:
    """What a start asks first. EventsUnavailable or EventsMisconfigured when events could not go through."""
    async with connected(config, "probe") as client:
        await ensure_stream(client.jetstream(), config)


def reason(error: BaseException) -> str:
    """What the library says, which is nothing for some of its errors."""
    return str(error) or type(error).__name__
