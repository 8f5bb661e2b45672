"""What settlement reads: the event of a journal record, or the fault that makes it none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from metering.canonical import digest
from metering.catalog import Catalog
from metering.errors import EventInvalid
from metering.event import UsageEvent, decode_event


class Reading(NamedTuple):
    """A record, its digest, and its event; `fault` says why there is none.

    `shares`: what the event's receipt says of them, where its terms were known when it was read.
    """

    record: bytes
    digest: str
    event: UsageEvent | None
    fault: str = ""
    shares: Mapping[str, int] | None = None


def read_record(record: bytes, catalog: Catalog) -> Reading:
    """Needs no database: done before the write lock is taken, or while another batch is being committed."""
    try:
        event = decode_event(record)
    except EventInvalid as error:
        return Reading(record, digest(record), None, str(error))
    return Reading(record, digest(record), event, shares=catalog.known_shares(event))
