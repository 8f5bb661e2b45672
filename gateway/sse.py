"""Server-sent events: reading the engine's stream and writing ours (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import orjson

DONE = b"data: [DONE]\n\n"
MEDIA_TYPE = "text/event-stream; charset=utf-8"


class Event(NamedTuple):
    """One event: its name ("message" unless the stream says otherwise) and its data."""

    name: str
    data: bytes


async def read(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[Event]]:
    """The events of a byte stream, those that arrive together at once.

    An unfinished last event is dropped, as the specification says.
    """
    pending = b""
    async for chunk in chunks:
        *blocks, pending = (pending + chunk).split(b"\n\n")
        if events := [event for block in blocks if (event := _parse(block))]:
            yield events


def _parse(block: bytes) -> Event | None:
    name, data = "message", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ").removesuffix(b"\r")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode()
    return Event(name, b"\n".join(data)) if data else None


def write(payload: dict[str, Any]) -> bytes:
    """One unnamed event with a JSON payload."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"
