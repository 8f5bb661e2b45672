"""Reads the gateway's journal from its files: docs/formats/journal.md, implemented a second time on purpose.

A load test that asked the gateway what its journal holds would prove nothing about the journal.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

MAGIC = b"OLJRNL1\n"
HEADER_BYTES = 64
FRAME = struct.Struct("<IIQ8s")  # payload length, kind, durable offset, check
RECORD = 1
ALIGN = 8


def read_journal(directory: Path) -> dict[str, dict[str, Any]]:
    """Every usage event of all segments, by request id."""
    events = (orjson.loads(payload) for path in sorted(directory.glob("*.seg")) for payload in records(path))
    return {event["id"]: event for event in events}


def records(path: Path) -> Iterator[bytes]:
    """The payloads of one segment, to the first place without a sound frame."""
    data, position = path.read_bytes(), HEADER_BYTES
    if not data.startswith(MAGIC):
        return
    while position + FRAME.size <= len(data):
        length, kind, durable_offset, check = FRAME.unpack_from(data, position)
        payload = data[position + FRAME.size : position + FRAME.size + length]
        head = struct.pack("<IIQQ", length, kind, durable_offset, position)
        if kind != RECORD or check != hashlib.sha256(head + payload).digest()[:8]:
            return
        yield payload
        position += FRAME.size + length + (-(FRAME.size + length) % ALIGN)
