"""Server-sent events."""

from collections.abc import AsyncIterator

import pytest

from gateway.sse import Event, read, write

STREAM = (
    b'event: openledger\ndata: {"a":1}\n\ndata: {"b":2}\n\n: comment\n\ndata: x\ndata: y\r\n\ndata: [DONE]\n\ndata: cut'
)
EVENTS = [
    Event("openledger", b'{"a":1}'),
    Event("message", b'{"b":2}'),
    Event("message", b"x\ny"),
    Event("message", b"[DONE]"),
]


async def cut(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_do_not_depend_on_how_the_bytes_arrive(size: int) -> None:
    """The unfinished last event is dropped."""
    assert [event async for events in read(cut(STREAM, size)) for event in events] == EVENTS


async def test_what_is_written_is_read_back() -> None:
    """Line breaks in values stay inside the JSON."""
    [[event]] = [events async for events in read(cut(write({"text": "a\n\nb"}), 5))]
    assert event.data == b'{"text":"a\\n\\nb"}'
