"""The log as C2SP tiles: a monitor can rebuild the tree from what is served."""

from __future__ import annotations

import struct

import pytest

from metering import merkle
from metering.errors import NotIncluded, TileUnknown
from metering.note import NoteVerifier
from metering.tiles import tile, tile_index_path


def test_a_monitor_rebuilds_the_root_from_tiles_and_entries(market, settler):
    """Entry bundles hash to the level 0 tiles, and those to the signed root, over a full and a partial tile."""
    for i in range(300):
        market.ledger.put_document("contribution", b'{"n":%d}' % i)
    settler.drain()
    note, content_type = tile(market.ledger, "checkpoint")
    assert content_type.startswith("text/plain")
    checkpoint = NoteVerifier(market.config.log_public_key_path.read_text()).open_checkpoint(note.decode())
    assert checkpoint.size == 303
    hashes = tile(market.ledger, "tile/0/000")[0] + tile(market.ledger, "tile/0/001.p/47")[0]
    leaves = [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
    assert merkle.tree_root(merkle.MemoryNodes(leaves), 303) == checkpoint.root
    bundle = tile(market.ledger, "tile/entries/000")[0] + tile(market.ledger, "tile/entries/001.p/47")[0]
    entries = []
    while bundle:
        (length,) = struct.unpack_from(">H", bundle)
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    assert [merkle.leaf_hash(entry) for entry in entries] == leaves
    assert tile(market.ledger, "tile/1/000.p/1")[0] == merkle.tree_root(merkle.MemoryNodes(leaves[:256]), 256)


@pytest.mark.parametrize(
    "path",
    [
        "", "tile/0/001", "tile/0/000.p/4", "tile/entries/000", "tile/entries/000.p/4", "tile/0/000.p/0",
        "tile/0/000.p/256", "tile/64/000", "tile/00/000", "tile/0/0", "tile/0/x000/000", "tile/0/../../log.key",
        "tile/0/" + "x999/" * 9 + "999",
    ],
)  # fmt: skip
def test_paths_outside_the_published_tree_are_unknown(market, settler, path):
    """Tiles that do not exist yet, malformed and non-canonical paths are TileUnknown."""
    settler.drain()  # three leaves
    with pytest.raises(TileUnknown):
        tile(market.ledger, path)


def test_an_empty_log_has_no_checkpoint(ledger):
    """Before the first entry there is nothing to sign."""
    with pytest.raises(NotIncluded):
        tile(ledger, "checkpoint")


def test_tile_index_paths():
    """The example of the specification: index 1234067 is x001/x234/067."""
    assert tile_index_path(1234067) == "x001/x234/067"
    assert tile_index_path(7) == "007"
