"""What settlement reads: the event of a journal record, or the fault that makes it none."""

from __future__ import annotations

from typing import NamedTuple

from metering.canonical import digest
from metering.errors import EventInvalid
from metering.event import UsageEvent, decode_event


class Reading(NamedTuple):
    """A record, its digest, and its event; `fault` says why there is none."""

    record: bytes
    digest: str
    event: UsageEvent | None
    fault: str = ""


def read_record(record: bytes) -> Reading:
    """Needs no database: done before the write lock is taken."""
    try:
        return Reading(record, digest(record), decode_event(record))
    except EventInvalid as error:
        return Reading(record, digest(record), None, str(error))
