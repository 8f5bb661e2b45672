"""What settlement reads: the event of a journal record, or the fault that makes it none."""

from __future__ import annotations

from typing import NamedTuple

from metering.canonical import digest
from metering.catalog import Catalog
from metering.errors import EventInvalid
from metering.event import UsageEvent, decode_event
from metering.receipt_body import Frame


class Reading(NamedTuple):
    """A record, its digest, and its event; `fault` says why there is none.

    `frame`: of the event's receipt, where what it takes was known when the record was read.
    """

    record: bytes
    digest: str
    event: UsageEvent | None
    fault: str = ""
    frame: Frame | None = None


def read_record(record: bytes, catalog: Catalog) -> Reading:
    """Needs no database: done before the write lock is taken, or by another process (metering.decoder)."""
    try:
        event = decode_event(record)
    except EventInvalid as error:
        return Reading(record, digest(record), None, str(error))
    return Reading(record, digest(record), event, frame=catalog.known_frame(event))
