"""C2SP tlog-tiles: the log as static files, for anyone's monitor."""

from __future__ import annotations

import re
import struct

from metering.cosignature import with_cosignatures
from metering.errors import TileUnknown
from metering.ledger import Ledger
from metering.log import HASH_BYTES, TILE_WIDTH, LogTree, leaf_bytes, read_checkpoint
from metering.note import parse_checkpoint, split_note

PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9]|[1-5][0-9]|6[0-3])/(?P<index>(x[0-9]{3}/)*[0-9]{3})"
    r"(\.p/(?P<width>[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?\Z"
)
BINARY, TEXT = "application/octet-stream", "text/plain; charset=utf-8"


def tile(ledger: Ledger, path: str) -> tuple[bytes, str]:
    """Body and content type of `checkpoint`, `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`, else TileUnknown."""
    if path == "checkpoint":
        return published_checkpoint(ledger).encode(), TEXT
    match = PATH.match(path)
    if not match:
        raise TileUnknown(f"not a tile path: {path!r}")
    index = int(match["index"].replace("x", "").replace("/", ""))
    if tile_index_path(index) != match["index"] or index >= 2**55:
        raise TileUnknown(f"not the shortest form of tile index {index}")
    width = int(match["width"] or TILE_WIDTH)
    if match["level"] == "entries":
        return _entries(ledger, index, width), BINARY
    with ledger.store.read() as connection:
        hashes = LogTree(connection).tile(int(match["level"]), index)
    if len(hashes) < width * HASH_BYTES:
        raise TileUnknown(f"{path} is not full to {width}")
    return hashes[: width * HASH_BYTES], BINARY


def tile_index_path(index: int) -> str:
    """1234067 -> x001/x234/067."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def published_checkpoint(ledger: Ledger) -> str:
    """The newest checkpoint, with the cosignatures that it has by now; NotIncluded while the log is empty."""
    with ledger.store.read() as connection:
        note = read_checkpoint(connection)
        return with_cosignatures(connection, parse_checkpoint(split_note(note)[0]).size, note)


def _entries(ledger: Ledger, index: int, width: int) -> bytes:
    """The entry bundle: each entry behind its big-endian uint16 length."""
    with ledger.store.read() as connection:
        rows = connection.execute(
            "SELECT kind, digest FROM log_leaves WHERE leaf_index >= ? AND leaf_index < ? ORDER BY leaf_index",
            (index * TILE_WIDTH, index * TILE_WIDTH + width),
        )
    if len(rows) < width:
        raise TileUnknown(f"entry bundle {index} is not full to {width}")
    entries = [leaf_bytes(kind, digest) for kind, digest in rows]
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)
