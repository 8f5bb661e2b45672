"""A copy of the log verifies from its entries alone, and not when any byte of it was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from metering.errors import LogInvalid
from metering.log import append_entry, latest_checkpoint
from metering.log_copy import accept_head, fetch_log, tile_paths, verify_log
from metering.log_key import rotate_key
from metering.note import NoteSigner, parse_checkpoint, split_note
from metering.receipt import build_receipt, verify_receipt
from metering.tiles import tile


def head_of(market) -> tuple[str, int, bytes]:
    note = latest_checkpoint(market.ledger)
    checkpoint = parse_checkpoint(split_note(note)[0])
    return note, checkpoint.size, checkpoint.root


def take(market, directory: Path) -> None:
    """Fetch, and take the fetched head for the copy's."""
    accept_head(directory, fetch_log(lambda path: tile(market.ledger, path)[0], directory).size)


def grow(market, settler, count: int) -> None:
    for number in range(count):
        append_entry(market.ledger, "contribution", b'{"number":%d,"of":"%d"}' % (number, id(settler)))
    settler.drain()


def keys(market) -> str:
    return market.config.log_public_key_path.read_text()


def test_a_whole_log_is_recomputed(market, settler, tmp_path):
    """Over two full tiles and a partial one: root, kinds of entries, earlier heads, and receipts at their leaves."""
    copy = tmp_path / "copy"
    [event] = market.serve(1)
    settler.drain()
    early = head_of(market)
    receipt = verify_receipt(build_receipt(market.ledger, event.id), keys(market))
    grow(market, settler, 300)
    middle = head_of(market)
    rotate_key(market.config, market.ledger)
    settler.read_key()
    market.serve(300)
    settler.drain()
    take(market, copy)
    heads = [(early[1], early[2]), (middle[1], middle[2]), (receipt.tree_size, receipt.root)]
    found = verify_log(copy, keys(market), saved=[early[0]], heads=heads, leaves={receipt.leaf_index: receipt.leaf})
    assert found.entries == {"price_book": 1, "terms": 2, "contribution": 300, "usage": 301, "log_key": 1}
    assert found.checkpoint.size == head_of(market)[1] == 605
    take(market, copy)  # nothing is fetched twice, and nothing was broken
    verify_log(copy, keys(market))
    with pytest.raises(LogInvalid) as failed:
        verify_log(copy, keys(market), leaves={receipt.leaf_index + 1: receipt.leaf})
    assert failed.value.step == "receipts"
    with pytest.raises(LogInvalid) as failed:
        verify_log(copy, keys(market), leaves={9999: receipt.leaf})
    assert failed.value.step == "receipts"
    with pytest.raises(LogInvalid) as failed:
        verify_log(copy, keys(market), heads=[(300, early[2])])
    assert failed.value.step == "consistency"


@pytest.mark.parametrize("width", [3, 255, 256, 257])
def test_every_changed_byte_of_a_copy_is_found(market, settler, tmp_path, width):
    """Whatever file of the copy is changed, cut, lengthened or lost, a step is named."""
    directory = tmp_path / "copy"
    grow(market, settler, width - 3)
    take(market, directory)
    assert verify_log(directory, keys(market)).checkpoint.size == width
    for path in ["checkpoint", *tile_paths(width)]:
        file = directory / path
        body = file.read_bytes()
        positions = range(len(body)) if len(body) < 500 else range(0, len(body), 997)
        damaged = [body[:i] + bytes([body[i] ^ 1]) + body[i + 1 :] for i in positions]
        for changed in [*damaged, body[:-1], body + b"\0", b""]:
            file.write_bytes(changed)
            with pytest.raises(LogInvalid):
                verify_log(directory, keys(market))
        file.unlink()
        with pytest.raises(LogInvalid):
            verify_log(directory, keys(market))
        file.write_bytes(body)
    verify_log(directory, keys(market))


def test_a_rewritten_or_shrunk_log_is_found(market, settler, tmp_path):
    """A log that signs another history than the saved checkpoint is inconsistent, however well it is signed."""
    directory = tmp_path / "copy"
    grow(market, settler, 20)
    take(market, directory)
    note, size, _ = head_of(market)
    signer = NoteSigner.load(market.config.log_key_path, market.config.log_origin)
    larger = signer.sign(note.partition("\n\n")[0].replace(f"\n{size}\n", f"\n{size + 5}\n") + "\n")
    for saved, match in ((larger, "shrunk"), (signer.sign(f"{signer.name}\n5\n{'A' * 43}=\n"), "another root")):
        with pytest.raises(LogInvalid, match=match) as failed:
            verify_log(directory, keys(market), saved=[saved])
        assert failed.value.step == "consistency"
    stranger = NoteSigner("other.example/log", b"\1" * 32)
    with pytest.raises(LogInvalid):
        verify_log(directory, keys(market), saved=[stranger.sign(f"{stranger.name}\n5\n{'A' * 43}=\n")])


def test_a_copy_that_is_brought_up_to_date_keeps_no_stale_tiles(market, settler, tmp_path):
    """After each fetch it holds exactly the head's tiles, and what is there is not asked for again."""
    copy, asked = tmp_path / "copy", []
    for count in (5, 260, 261):  # the first of them are known already
        grow(market, settler, count)
        asked.append(0)

        def read(path: str) -> bytes:
            asked[-1] += 1
            return tile(market.ledger, path)[0]

        size = fetch_log(read, copy).size
        accept_head(copy, size)
        files = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
        assert files == {"checkpoint", *tile_paths(size)}
        verify_log(copy, keys(market))
    assert asked == [3, 6, 3]  # at last: the head, a partial bundle and a partial tile


def test_paths_of_a_large_log():
    """Levels, full and partial tiles, and long indexes as the specification writes them."""
    paths = list(tile_paths(256 * 256 * 2 + 3))
    assert paths[-3:] == ["tile/1/000", "tile/1/001", "tile/2/000.p/2"]
    assert "tile/0/512.p/3" in paths
    assert "tile/entries/x001/x234/067" not in paths
    assert list(tile_paths(0)) == []
