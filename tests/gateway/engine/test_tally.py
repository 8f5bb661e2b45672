"""The engine's own count of tokens."""

from pathlib import Path

import pytest

from gateway.engine.tally import RECORD_BYTES, TallyWriter, read_records, read_totals

FIRST, SECOND = "req_" + "a" * 32, "req_" + "0" * 31 + "7"


def test_totals_add_up_over_choices_steps_and_processes(tmp_path: Path) -> None:
    """A request's total is the sum of its records in every file."""
    for tokens in (3, 4):
        writer = TallyWriter(tmp_path)
        writer.count(FIRST, 0, tokens)
        writer.count(FIRST, 1, 1)
        writer.count(SECOND, 0, 2)
        writer.flush()
    assert read_totals(tmp_path) == {FIRST: 9, SECOND: 4}


def test_nothing_is_counted_before_flush(tmp_path: Path) -> None:
    """`flush` is what makes a count durable against a killed process."""
    writer = TallyWriter(tmp_path)
    writer.count(FIRST, 0, 5)
    assert read_totals(tmp_path) == {}
    writer.flush()
    assert read_totals(tmp_path) == {FIRST: 5}


@pytest.mark.parametrize("cut", range(1, RECORD_BYTES))
def test_a_torn_last_record_is_ignored(tmp_path: Path, cut: int) -> None:
    """Whatever is left of a half-written record, the records before it are read and no more."""
    writer = TallyWriter(tmp_path)
    writer.count(FIRST, 0, 1)
    writer.count(SECOND, 0, 1)
    writer.flush()
    [path] = tmp_path.glob("*.bin")
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read_records(tmp_path)) == [(FIRST, 0, 1)]


def test_a_record_with_a_wrong_checksum_ends_its_file(tmp_path: Path) -> None:
    """A flipped bit is not taken for a count."""
    writer = TallyWriter(tmp_path)
    writer.count(FIRST, 0, 1)
    writer.flush()
    [path] = tmp_path.glob("*.bin")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert read_totals(tmp_path) == {}
