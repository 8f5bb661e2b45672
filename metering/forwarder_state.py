"""How far a journal was forwarded: one small file beside its segments, replaced whole after every batch.

Losing it costs nothing but work: everything that the journal still has is published again, and settled once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from metering.config import MeteringConfig

FILE = "forwarder.json"


@dataclass(slots=True)
class SegmentState:
    """One segment: where the next record to publish begins, the stream's sequence number of the last one published,
    and whether settlers have acknowledged all of it up to there."""

    next_offset: int = 0
    last_sequence: int = 0
    settled: bool = False


@dataclass(slots=True)
class ForwarderState:
    """`stream` and `server` say which stream (by its time of creation) and which server process took the records.

    The rest is for people and metrics: counts since the journal began, what the bus has not yet had settled, the last
    failure (empty while all is well).
    """

    stream: str = ""
    server: str = ""
    published: int = 0
    duplicates: int = 0
    failures: int = 0
    unsettled: int = 0
    failure: str = ""
    segments: dict[str, SegmentState] = field(default_factory=dict)

    @property
    def cursors(self) -> dict[str, int]:
        """What is published, for a JournalReader."""
        return {name: segment.next_offset for name, segment in self.segments.items() if segment.next_offset}

    @property
    def settled_cursors(self) -> dict[str, int]:
        """Of the segments of which all that was published is settled."""
        return {name: segment.next_offset for name, segment in self.segments.items() if segment.settled}

    @property
    def last_sequence(self) -> int:
        """The highest sequence number that the stream gave one of our records."""
        return max((segment.last_sequence for segment in self.segments.values()), default=0)

    def note(self, segment: str, next_offset: int, sequence: int) -> None:
        """The stream has the record that ends at `next_offset`."""
        state = self.segments.setdefault(segment, SegmentState())
        state.next_offset = max(state.next_offset, next_offset)
        state.last_sequence = max(state.last_sequence, sequence)
        state.settled = False

    def settle(self, floor: int) -> None:
        """Settlers have acknowledged all up to the sequence number `floor`."""
        for segment in self.segments.values():
            segment.settled = segment.settled or segment.last_sequence <= floor

    def start_over(self, stream: str, server: str) -> None:
        """Another stream, or a server that was started again and may have lost its latest records: publish again what
        is not known to be settled."""
        self.stream, self.server = stream, server
        self.segments = {
            name: SegmentState(segment.next_offset, settled=True)
            for name, segment in self.segments.items()
            if segment.settled
        }

    def forget(self, present: set[str]) -> None:
        """Drop the segments that were removed."""
        self.segments = {name: segment for name, segment in self.segments.items() if name in present}

    def save(self, directory: Path) -> None:
        staged = directory / f"{FILE}.new"
        staged.write_text(json.dumps(asdict(self)))
        os.replace(staged, directory / FILE)


def load_state(directory: Path) -> ForwarderState:
    """The stored state; a new one when there is none, or it is torn."""
    try:
        stored = json.loads((directory / FILE).read_text())
        segments = {name: SegmentState(**segment) for name, segment in stored.pop("segments").items()}
        return ForwarderState(**stored, segments=segments)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ForwarderState()


def unsettled_from(config: MeteringConfig, cursors: Mapping[str, int]) -> Mapping[str, int]:
    """The cursors behind which the journal may hold records that are not settled: the ledger's own `cursors` where it
    is settled from the journal, the forwarder's where it goes through a bus."""
    return load_state(config.journal_dir).settled_cursors if config.events_url else cursors
