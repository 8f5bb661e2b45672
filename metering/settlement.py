"""Settlement: journal to rating to ledger to log, exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from metering.canonical import digest
from metering.catalog import Catalog, frame_event
from metering.errors import RatingError
from metering.event import UsageEvent, rfc3339
from metering.ledger import MICROTOKEN, MICROTOKENS_PER_TOKEN, receivable, wallet
from metering.log import LogTree, sign_checkpoint
from metering.note import NoteSigner
from metering.period import current_month
from metering.postings import Postings, Transfer
from metering.pricebook import Rating, rate_event
from metering.reading import Reading
from metering.receipt_body import receipt_body
from metering.store import Connection
from metering.volume import read_volumes
from metering.windows import BASE_ONLY, GENERATED, WindowTotals, clearing, open_window


@dataclass(frozen=True, slots=True)
class SettledBatch:
    """What one transaction did: counts of journal records by outcome, and log entries sequenced from the inbox."""

    settled: int = 0
    duplicates: int = 0
    quarantined: int = 0
    entries: int = 0

    def __add__(self, other: SettledBatch) -> SettledBatch:
        return SettledBatch(
            self.settled + other.settled,
            self.duplicates + other.duplicates,
            self.quarantined + other.quarantined,
            self.entries + other.entries,
        )

    def __bool__(self) -> bool:
        return self != SettledBatch()


@dataclass(slots=True)
class Batch:
    """One transaction of settlement: everything that a set of records changes, written at once by `finish`."""

    connection: Connection
    catalog: Catalog
    currency: str
    time_us: int
    window: int = 0
    time: str = field(init=False)
    postings: Postings = field(init=False)
    totals: WindowTotals = field(default_factory=WindowTotals)
    settled: dict[str, str] = field(default_factory=dict)  # event id to digest
    bodies: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    lines: defaultdict[tuple[Any, ...], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    volumes: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)  # by tenant and month
    duplicates: int = 0
    quarantined: int = 0

    def __post_init__(self) -> None:
        self.time = rfc3339(self.time_us)
        self.postings = Postings(self.connection, self.time_us)

    def load(self, readings: Sequence[Reading]) -> None:
        """Read in a few statements what `add` will ask for: which events are settled, and their holds."""
        names = sorted({reading.event.id for reading in readings if reading.event is not None})
        self.settled.update(self.connection.select("id, event_digest", "usage", "id", names))
        self.postings.load_holds(names)

    def add(self, reading: Reading) -> None:
        """Settle one of the loaded records, count it as a duplicate, or put it into quarantine."""
        event = reading.event
        if event is None:
            self.put_aside(reading, f"event_invalid: {reading.fault}")
            return
        try:
            if self._known(event, reading.digest):
                self.duplicates += 1
            else:
                self._settle(event, reading)
        except RatingError as error:
            self.put_aside(reading, str(error))

    def finish(self, signer: NoteSigner, inbox_limit: int) -> SettledBatch:
        """Write all rows, sequence the leaves and the inbox, sign a checkpoint."""
        inbox = self.connection.execute("SELECT seq, kind, digest FROM log_inbox ORDER BY seq LIMIT ?", (inbox_limit,))
        entries = [(kind, name) for _, kind, name in inbox]
        entries += [("usage", row[-1]) for row in self.bodies.values()]
        if entries:
            tree = LogTree(self.connection)
            first = tree.append(entries) + len(inbox)
            sign_checkpoint(self.connection, tree, signer, self.time_us)
            self.connection.executemany("DELETE FROM log_inbox WHERE seq = ?", [(row[0],) for row in inbox])
            self._write_usage(first)
        self.postings.flush()
        return SettledBatch(len(self.bodies), self.duplicates, self.quarantined, len(inbox))

    def _known(self, event: UsageEvent, event_digest: str) -> bool:
        """True for an event that was settled before; RatingError `event_conflict` when it said something else then."""
        earlier = self.settled.get(event.id)
        if earlier is None:
            return False
        if earlier != event_digest:
            raise RatingError(f"event_conflict: {event.id} was settled as {earlier}")
        return True

    def _settle(self, event: UsageEvent, reading: Reading) -> None:
        terms, book = self.catalog.agree(self.connection, event, self.currency)
        if not self.window:
            self.window = open_window(self.connection, self.time_us)
        volumes = self._volumes(event) if book.prices(event.adapter).tiers else None
        rating = rate_event(event, book, volumes)
        total_nanos = rating.total_nanos
        base_only = event.purpose != "serve" or not terms.declared
        transfers = [*self._charge(event, total_nanos), *self._count(event, base_only)]
        self.totals.add(event, total_nanos, base_only=base_only)
        self._add_lines(event, rating)
        frame = reading.frame or frame_event(event, terms, book, rating)
        body = receipt_body(reading.record, frame, transfers, self.window, self.time)
        self.settled[event.id] = reading.digest
        self.bodies[event.id] = (
            event.id, reading.digest, self.window, event.tenant, event.terms, event.completion_tokens,
            int(base_only), total_nanos, body, digest(body),
        )  # fmt: skip

    def _volumes(self, event: UsageEvent) -> dict[str, int]:
        """What chooses the event's tiers. It is of a month that is over, so that no order of events changes it."""
        at_us = min(event.time_unix_us, self.time_us)  # a gateway's clock may be ahead
        key = (event.tenant, current_month(at_us))
        if key not in self.volumes:
            self.volumes[key] = read_volumes(self.connection, event.tenant, at_us)
        return self.volumes[key]

    def _charge(self, event: UsageEvent, total_nanos: int) -> list[Transfer]:
        """Debit the client once: from its hold, else from what it has; what is missing it owes."""
        hold = self.postings.find_hold(event.id)
        if hold is not None and hold.tenant != event.tenant:
            raise RatingError(f"hold_of_other_tenant: {hold.tenant}")
        posted = 0
        if hold is not None and hold.state == "pending":
            posted = min(total_nanos, hold.amount_nanos)
            self.postings.release(hold, "posted" if posted else "voided", posted)
        paid, owed = posted, total_nanos - posted
        client = self.postings.find(wallet(event.tenant), self.currency) if owed else None
        if client is not None:
            extra = max(0, min(owed, client.available - posted))
            paid, owed = paid + extra, owed - extra
        transfers = []
        if paid:
            transfers.append(self._move(f"{event.id}/usage", wallet(event.tenant), event, paid, "usage"))
        if owed:
            self.postings.open(receivable(event.tenant), self.currency, overdraft=True)
            transfers.append(self._move(f"{event.id}/owed", receivable(event.tenant), event, owed, "owed"))
        return transfers

    def _move(self, identifier: str, debit: str, event: UsageEvent, amount: int, code: str) -> Transfer:
        transfer = Transfer(identifier, debit, clearing(event.terms), self.currency, amount, code)
        source = self.postings.find(debit, self.currency)
        assert source is not None, debit
        self.postings.post(transfer, source, self.postings.open(transfer.credit, self.currency, overdraft=False))
        return transfer

    def _count(self, event: UsageEvent, base_only: bool) -> list[Transfer]:
        """Issue the event's microtokens."""
        microtokens = event.completion_tokens * MICROTOKENS_PER_TOKEN
        if not microtokens:
            return []
        credit = BASE_ONLY if base_only else clearing(event.terms)
        transfer = Transfer(f"{event.id}/tokens", GENERATED, credit, MICROTOKEN, microtokens, "generated")
        source = self.postings.open(GENERATED, MICROTOKEN, overdraft=True)
        self.postings.post(transfer, source, self.postings.open(credit, MICROTOKEN, overdraft=False))
        return [transfer]

    def _add_lines(self, event: UsageEvent, rating: Rating) -> None:
        day = self.time[:10]
        for line in rating.lines:
            if line.quantity:
                key = (event.tenant, day, event.model, event.adapter or "", line.kind, line.unit_nanos)
                totals = self.lines[key]
                totals[0] += 1
                totals[1] += line.quantity
                totals[2] += line.amount_nanos

    def _write_usage(self, first_leaf: int) -> None:
        rows = [(*row[:-1], first_leaf + i) for i, row in enumerate(self.bodies.values())]
        self.connection.insert(
            "usage",
            "id, event_digest, window_id, tenant, terms, completion_tokens, base_only, amount_nanos, body, leaf_index",
            rows,
        )
        if self.window:
            self.totals.flush(self.connection, self.window)
        self.connection.executemany(
            "INSERT INTO usage_totals (tenant, day, model, adapter, kind, unit_nanos, requests, quantity, amount_nanos)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, day, model, adapter, kind, unit_nanos) DO UPDATE"
            " SET requests = usage_totals.requests + excluded.requests,"
            " quantity = usage_totals.quantity + excluded.quantity,"
            " amount_nanos = usage_totals.amount_nanos + excluded.amount_nanos",
            [(*key, *totals) for key, totals in sorted(self.lines.items())],
        )

    def put_aside(self, reading: Reading, reason: str) -> None:
        """Into quarantine, under a named reason: kept, reported by `check`, retried."""
        self.quarantined += 1
        event_id = reading.event.id if reading.event else None
        self.connection.execute(
            "INSERT INTO quarantine (record_digest, reason, event_id, record, time_us) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (record_digest) DO UPDATE SET reason = excluded.reason",
            (reading.digest, reason, event_id, reading.record, self.time_us),
        )
