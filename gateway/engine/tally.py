"""The engine's own count of generated tokens, kept apart from the gateway's journal.

One 32-byte record per group of tokens a request receives in one engine step, little endian:

    bytes 0-15   the request id's uuid
    bytes 16-19  choice index (u32)
    bytes 20-23  new completion tokens (u32)
    bytes 24-27  reserved, zero
    bytes 28-31  crc32 of bytes 0-27

A record is handed to the operating system before the tokens it counts leave the engine process, so a killed engine
never emitted a token it did not count. A torn last record (the machine lost power) is ignored by the reader.
"""

import os
import struct
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

RECORD = struct.Struct("<16sIII")
RECORD_BYTES = RECORD.size + 4
REQUEST_ID_PREFIX = "req_"


class TallyWriter:
    """Append-only writer of one engine process; a new file per process.

    Records are buffered by `count` and leave with `flush`, which the engine calls once per step.
    """

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns()}-{os.getpid()}.bin"
        self._fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._buffer = bytearray()

    def count(self, request_id: str, choice: int, new_tokens: int) -> None:
        """Counts `new_tokens` completion tokens of one choice of a request."""
        body = RECORD.pack(bytes.fromhex(request_id.removeprefix(REQUEST_ID_PREFIX)), choice, new_tokens, 0)
        self._buffer += body + struct.pack("<I", zlib.crc32(body))

    def flush(self) -> None:
        """Hands buffered records to the operating system; raises OSError when it refuses them."""
        while self._buffer:
            written = os.write(self._fd, self._buffer)
            del self._buffer[:written]


def read_records(directory: Path) -> Iterator[tuple[str, int, int]]:
    """Yields (request id, choice index, new tokens) of every intact record under `directory`."""
    for path in sorted(directory.glob("*.bin")):
        data = path.read_bytes()
        for start in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
            body, crc = data[start : start + RECORD.size], data[start + RECORD.size : start + RECORD_BYTES]
            if zlib.crc32(body) != int.from_bytes(crc, "little"):
                break
            uuid, choice, new_tokens, _ = RECORD.unpack(body)
            yield REQUEST_ID_PREFIX + uuid.hex(), choice, new_tokens


def read_totals(directory: Path) -> dict[str, int]:
    """Completion tokens generated per request id."""
    totals: dict[str, int] = defaultdict(int)
    for request_id, _, new_tokens in read_records(directory):
        totals[request_id] += new_tokens
    return dict(totals)
