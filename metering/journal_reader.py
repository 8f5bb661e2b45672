"""The journal: the reading side, which tails every segment from stored cursors and seals those whose writer died."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from metering.errors import JournalCorrupt
from metering.segment import (
    ALIGN,
    HEADER_BYTES,
    RECORD,
    SEAL,
    SUFFIX,
    Frame,
    announced_bytes,
    decode_frame,
    encode_frame,
)
from metering.source import SourceRecord

FIRST_READ_BYTES = 16 * 1024
READ_BYTES = 4 * 1024 * 1024
STALE_SECONDS = 60.0  # a half-made segment this old has no maker any more


class JournalReader:
    """Reads all segments of a directory. A cursor is (segment name, offset); it only ever moves forward."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._finished: set[str] = set()  # segments whose seal the caller's cursor has reached

    def segments(self) -> list[str]:
        """Names of all segments, oldest first."""
        return sorted(path.name for path in self._directory.glob(f"*{SUFFIX}"))

    def read(
        self, cursors: Mapping[str, int], limit: int, ahead: Mapping[str, int] | None = None
    ) -> list[SourceRecord]:
        """Up to `limit` records after the cursors (segments without one are read from their start); the position of
        each is the cursor that stands after it.

        `ahead` are cursors that are not stored yet and count where they are given.
        """
        ahead = ahead or {}
        records: list[SourceRecord] = []
        for segment in self.segments():
            if segment in self._finished:
                continue
            unread = len(records)
            start = ahead.get(segment) or cursors.get(segment, HEADER_BYTES)
            for frame in frames(self._directory / segment, start):
                if frame.kind == SEAL:
                    stored = len(records) == unread and segment not in ahead
                    if stored:  # else the caller may fail to store its cursor, and ask for them again
                        self._finished.add(segment)
                    break
                records.append(SourceRecord(frame.payload, (segment, frame.next_offset)))
                if len(records) == limit:
                    return records
        return records

    def seal_orphans(self) -> list[JournalCorrupt]:
        """Seal the segments whose writer is gone, so that their end is known; returns those found damaged, unsealed.

        What follows the last whole record was never acknowledged (a torn tail) unless a later record says that the
        damaged place was durable when that record was written: then acknowledged records are lost.
        """
        damaged: list[JournalCorrupt] = []
        for segment in self.segments():
            if segment in self._finished:
                continue
            try:
                _seal_if_orphan(self._directory / segment)
            except JournalCorrupt as error:
                damaged.append(error)
            except FileNotFoundError:
                continue
        for path in self._directory.glob("*.new"):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)
        return damaged

    def remove_settled(self, cursors: Mapping[str, int], retention_seconds: float) -> list[str]:
        """Delete sealed segments read to their end and last written over `retention_seconds` ago; their names."""
        removed = []
        for segment in self.segments():
            path = self._directory / segment
            if time.time() - path.stat().st_mtime < retention_seconds:
                continue
            frame = next(frames(path, cursors.get(segment, HEADER_BYTES)), None)
            if frame is not None and frame.kind == SEAL:
                path.unlink()
                removed.append(segment)
        return removed


def frames(path: Path, offset: int) -> Iterator[Frame]:
    """Whole frames of one segment from `offset` on, until its seal or the first place without one."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # settled and removed meanwhile
    try:
        size = FIRST_READ_BYTES  # an idle segment costs its reader little
        while data := os.pread(descriptor, size, offset):
            position = 0
            while frame := decode_frame(data, position, offset):
                yield frame
                if frame.kind == SEAL:
                    return
                position = frame.next_offset - offset
            if position:
                offset += position
                size = READ_BYTES
                continue
            needed = min(announced_bytes(data), os.fstat(descriptor).st_size - offset)
            if needed <= len(data):
                return
            size = needed  # a record larger than one read
    finally:
        os.close(descriptor)


def _seal_if_orphan(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # its writer lives
        offset = HEADER_BYTES
        for frame in frames(path, HEADER_BYTES):
            if frame.kind == SEAL:
                return
            offset = frame.next_offset
        _refuse_damage(path, offset)
        os.pwrite(descriptor, encode_frame(SEAL, b"", offset, offset), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_damage(path: Path, offset: int) -> None:
    """Raise JournalCorrupt when a sound frame behind `offset` was written after `offset` had become durable."""
    data = path.read_bytes()
    if not data.strip(b"\0"):
        return
    for kind in (RECORD, SEAL):
        mark = kind.to_bytes(4, "little")
        place = data.find(mark, offset)
        while place >= 0:
            position = place - 4  # the kind is the frame's second word
            if position % ALIGN == 0:
                frame = decode_frame(data, position)
                if frame is not None and frame.durable_offset > offset:
                    raise JournalCorrupt(f"{path.name}: damaged at {offset}, but durable to {frame.durable_offset}")
            place = data.find(mark, place + 1)
