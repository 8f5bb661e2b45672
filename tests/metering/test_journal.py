"""The journal keeps what it acknowledged, through torn tails, unsynced writes, full disks and many writers."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import threading
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import journal
from metering.errors import JournalUnavailable, RecordTooLarge
from metering.journal import JournalWriter
from metering.journal_reader import JournalReader
from metering.segment import (
    HEADER_BYTES,
    RECORD,
    SEAL,
    DiskStorage,
    decode_frame,
    encode_frame,
    encode_header,
    frame_bytes,
)

SYNC_CALL = "        self._segment.sync()\n        self._offset = offset\n"


def payloads(config) -> list[bytes]:
    return [record.payload for record in JournalReader(config.journal_dir).read({}, 10**6)]


class ForgetfulStorage(DiskStorage):
    """A disk with a volatile cache: what was not synced is gone after `cut_power`."""

    def __init__(self) -> None:
        self.pending: list[tuple[object, int, bytes]] = []

    def create(self, path: Path, size: int):
        storage, inner = self, super().create(path, size)

        class ForgetfulSegment:
            def write(self, offset: int, data: bytes) -> None:
                storage.pending.append((inner, offset, data))

            def sync(self) -> None:
                for segment, offset, data in storage.pending:
                    segment.write(offset, data)
                storage.pending.clear()
                inner.sync()

            def close(self) -> None:
                inner.close()

        return ForgetfulSegment()

    def cut_power(self) -> None:
        self.pending.clear()


class FullStorage(DiskStorage):
    """A disk that is full while `full` is set."""

    full = False

    def create(self, path: Path, size: int):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create(path, size)

    def free_bytes(self, directory: Path) -> int:
        return 0 if self.full else 10**12


def acknowledged_but_lost(module: types.ModuleType, config) -> list[bytes]:
    """Append through `module`'s writer on a forgetful disk, cut the power: which acknowledged records are gone?"""
    storage = ForgetfulStorage()
    writer = module.JournalWriter(config, "gateway", storage)
    records = [b"record %d" % i for i in range(50)]
    for record in records:
        writer.append(record).result(timeout=10)
    storage.cut_power()
    kept = payloads(config)
    writer.close()
    return [record for record in records if record not in kept]


def test_acknowledged_records_survive_a_power_cut(config):
    """On a disk that drops unsynced writes, every record whose future resolved is there."""
    assert acknowledged_but_lost(journal, config) == []


def test_the_power_cut_test_fails_without_the_sync_call(config):
    """Mutation: the same writer with its sync call removed loses records, so the test above does guard that call."""
    source = Path(journal.__file__).read_text()
    assert source.count(SYNC_CALL) == 1
    mutant = types.ModuleType("journal_without_sync")
    exec(source.replace(SYNC_CALL, "        self._offset = offset\n"), mutant.__dict__)
    assert acknowledged_but_lost(mutant, config) != []


def test_a_torn_tail_is_sealed_off(config):
    """A last record that was only half written is dropped; what was acknowledged before it stays."""
    writer = JournalWriter(config, "gateway")
    writer.append(b"whole").result()
    writer._segment.write(writer._offset, encode_frame(RECORD, b"x" * 500, writer._offset, writer._offset)[:200])
    writer._segment.close()  # the process dies: its lock goes, no seal is written
    writer._segment = None
    writer.close()
    reader = JournalReader(config.journal_dir)
    assert reader.seal_orphans() == []
    assert [record.payload for record in reader.read({}, 10)] == [b"whole"]
    assert reader.remove_settled({reader.segments()[0]: HEADER_BYTES + frame_bytes(5)}, 0) != []


def test_damage_to_acknowledged_records_is_reported_not_sealed(config):
    """A flipped byte in a durable record is JournalCorrupt: a later record proves that the place had been durable."""
    writer = JournalWriter(config, "gateway")
    for i in range(3):
        writer.append(b"record %d" % i).result()
    writer.close()
    path = next(config.journal_dir.glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + frame_bytes(8) + 30] ^= 1
    path.write_bytes(data)
    reader = JournalReader(config.journal_dir)
    assert len(reader.seal_orphans()) == 1
    assert [record.payload for record in reader.read({}, 10)] == [b"record 0"]


def test_a_full_disk_acknowledges_nothing_and_recovers(config):
    """With no room for a segment, futures fail with JournalUnavailable and admission stops, until there is space."""
    storage = FullStorage()
    writer = JournalWriter(config, "gateway", storage)
    assert writer.can_accept()
    storage.full = True
    assert not writer.can_accept()
    record, failed = b"x" * 20_000, 0
    futures = [writer.append(record) for _ in range(5)]  # three fit the segment
    for future in futures:
        try:
            future.result(timeout=10)
        except JournalUnavailable:
            failed += 1
    assert failed == 2
    assert len(payloads(config)) == 3
    storage.full = False
    writer.append(b"after").result(timeout=10)
    assert payloads(config)[-1] == b"after"
    assert writer.can_accept()
    writer.close()


def test_low_space_stops_admission_before_the_disk_is_full(config):
    """can_accept is False below min_free_bytes while appends still work."""
    writer = JournalWriter(dataclasses.replace(config, min_free_bytes=2**62), "gateway")
    assert not writer.can_accept()
    writer.append(b"in flight").result()
    writer.close()


def test_no_first_segment_is_journal_unavailable(config):
    """A gateway that cannot write its journal does not start to serve."""
    storage = FullStorage()
    storage.full = True
    with pytest.raises(JournalUnavailable):
        JournalWriter(config, "gateway", storage)


def test_a_full_backlog_and_an_oversize_record_are_refused(config):
    """Memory is bounded: beyond backlog_bytes append raises at once; a record larger than a segment never fits."""
    gate = threading.Event()

    class SlowStorage(DiskStorage):
        def create(self, path: Path, size: int):
            segment = super().create(path, size)
            sync = segment.sync
            segment.sync = lambda: (gate.wait(10), sync())[1]
            return segment

    writer = JournalWriter(dataclasses.replace(config, backlog_bytes=10_000), "gateway", SlowStorage())
    with pytest.raises(RecordTooLarge):
        writer.append(b"x" * 70_000)
    futures = [writer.append(b"x" * 3_000) for _ in range(3)]
    assert not writer.can_accept()
    with pytest.raises(JournalUnavailable):
        writer.append(b"x" * 3_000)
    gate.set()
    for future in futures:
        future.result(timeout=10)
    writer.close()
    with pytest.raises(JournalUnavailable):
        writer.append(b"late")


def test_many_writers_share_a_directory_and_segments_rotate(config):
    """Workers own files of their own; a reader with cursors sees every record exactly once, whatever the order."""
    writers = [JournalWriter(config, f"worker-{i}") for i in range(3)]
    reader, cursors, seen = JournalReader(config.journal_dir), {}, []
    for turn in range(4):
        futures = [
            writer.append(b"%d/%d/%d " % (turn, w, i) + b"x" * 700)
            for w, writer in enumerate(writers)
            for i in range(40)
        ]
        for future in futures:
            future.result(timeout=10)
        while batch := reader.read(cursors, 17):
            seen += [record.payload for record in batch]
            cursors |= dict(record.position for record in batch)
    for writer in writers:
        writer.close()
    assert len(seen) == len(set(seen)) == 4 * 3 * 40
    assert len(reader.segments()) > 3
    assert reader.read(cursors, 10) == []
    assert set(reader.remove_settled(cursors, 0)) == set(cursors)


def test_a_living_writer_is_not_sealed(config):
    """seal_orphans leaves segments alone whose writer holds its lock."""
    writer = JournalWriter(config, "gateway")
    writer.append(b"one").result()
    JournalReader(config.journal_dir).seal_orphans()
    writer.append(b"two").result()
    assert payloads(config) == [b"one", b"two"]
    writer.close()


async def test_append_can_be_awaited(config):
    """append_async serves many coroutines of one event loop."""
    writer = JournalWriter(config, "gateway")
    await asyncio.gather(*(writer.append_async(b"%d" % i) for i in range(100)))
    assert len(payloads(config)) == 100
    writer.close()


def test_the_published_segment():
    """The vector beside the format page is what the code writes, and reads back."""
    vector = json.loads((Path(__file__).parents[1] / "vectors" / "journal.json").read_text())
    data = bytes.fromhex(vector["hex"])
    record = encode_frame(RECORD, b"{}", HEADER_BYTES, HEADER_BYTES)
    seal_at = HEADER_BYTES + len(record)
    seal = encode_frame(SEAL, b"", seal_at, seal_at)
    assert encode_header(vector["name"], vector["segment_bytes"]) + record + seal == data
    assert decode_frame(data, HEADER_BYTES).payload == b"{}"
    assert decode_frame(data, seal_at).kind == SEAL


@given(st.binary(max_size=200), st.integers(0, 8))
def test_any_bytes_are_a_sound_frame_or_none(data, position):
    """Fuzz: arbitrary bytes are never taken for a frame, nor raise."""
    assert decode_frame(data, position) is None


def test_records_of_any_size_that_fits_are_read(config):
    """Records from nothing to several megabytes come back whole, in order."""
    writer = JournalWriter(dataclasses.replace(config, segment_bytes=16 * 2**20, backlog_bytes=16 * 2**20), "gateway")
    records = [b"", b"x", b"y" * 20_000, b"z" * 5_000_000, b"w" * 17_000, b"end"]
    for future in [writer.append(record) for record in records]:
        future.result(timeout=10)
    assert payloads(config) == records
    writer.close()
    assert payloads(config) == records
