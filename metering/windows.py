"""Settlement windows: money and scores gathered per terms, then paid once per contributor."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from metering.catalog import Catalog
from metering.event import UsageEvent
from metering.ledger import MICROTOKEN, MICROTOKENS_PER_TOKEN
from metering.period import parse_period
from metering.postings import Postings, Transfer
from metering.shares import PPM, largest_remainder, share_weights
from metering.store import Connection
from metering.terms import HOLDERS, Terms

GENERATED = "generated"  # issues every microtoken: its debits are all tokens ever generated
BASE_ONLY = "base-only"  # microtokens that belong to no contributor
RESIDUE = "residue"  # what the floors of a role split leave, under 5 nanos per terms and window
TREASURY = "treasury"


@dataclass(slots=True)
class TermsTotals:
    """What one window gathered under one terms digest."""

    events: int = 0
    amount_nanos: int = 0
    microtokens: int = 0
    scores: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Payout:
    """One part of a window: `amount` of `unit` to `account` for its `role`."""

    role: str
    account: str
    unit: str
    amount: int


class WindowTotals:
    """Additions of one transaction to the open window."""

    def __init__(self) -> None:
        self._terms: defaultdict[str, TermsTotals] = defaultdict(TermsTotals)

    def add(self, event: UsageEvent, amount_nanos: int, *, base_only: bool) -> None:
        """`base_only`: the tokens earn nobody microtokens and move no scores."""
        totals = self._terms[event.terms]
        totals.events += 1
        totals.amount_nanos += amount_nanos
        if not base_only:
            totals.microtokens += event.completion_tokens * MICROTOKENS_PER_TOKEN
            scores = totals.scores
            for name, score in event.scores.items():
                scores[name] += score

    def flush(self, connection: Connection, window: int) -> None:
        connection.executemany(
            "INSERT INTO window_terms (window_id, terms, events, amount_nanos, microtokens) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (window_id, terms) DO UPDATE SET events = window_terms.events + excluded.events,"
            " amount_nanos = window_terms.amount_nanos + excluded.amount_nanos,"
            " microtokens = window_terms.microtokens + excluded.microtokens",
            [(window, name, t.events, t.amount_nanos, t.microtokens) for name, t in sorted(self._terms.items())],
        )
        connection.executemany(
            "INSERT INTO window_scores (window_id, terms, contributor, score) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (window_id, terms, contributor) DO UPDATE SET score = window_scores.score + excluded.score",
            [
                (window, name, contributor, score)
                for name, totals in sorted(self._terms.items())
                for contributor, score in sorted(totals.scores.items())
            ],
        )


def clearing(terms_digest: str) -> str:
    """The account where a window's money (and microtokens) of these terms waits for its close."""
    return f"clearing:{terms_digest}"


def find_open_window(connection: Connection) -> tuple[int, int] | None:
    """Number and opening time of the open window, if there is one."""
    rows = connection.execute("SELECT id, opened_us FROM windows WHERE closed_us IS NULL")
    return rows[0] if rows else None


def last_settled_us(connection: Connection) -> int:
    """The latest time at which anything was settled: of the newest checkpoint, or of the newest window; or the end of
    the last month that was invoiced to anybody, when that is later. 0 before."""
    signed = connection.execute("SELECT max(time_us) FROM log_checkpoints")[0][0] or 0
    rows = connection.execute("SELECT opened_us, closed_us FROM windows ORDER BY id DESC LIMIT 1")
    month = connection.execute("SELECT max(period) FROM invoices")[0][0]
    invoiced = parse_period(month).end_us if month else 0
    return max(signed, invoiced, *(time or 0 for row in rows for time in row))


def open_window(connection: Connection, time_us: int) -> int:
    """The open window's number; opens the next one when none is."""
    found = find_open_window(connection)
    if found:
        return found[0]
    number = (connection.execute("SELECT max(id) FROM windows")[0][0] or 0) + 1
    connection.execute("INSERT INTO windows (id, opened_us) VALUES (?, ?)", (number, time_us))
    return number


def read_totals(connection: Connection, window: int) -> dict[str, TermsTotals]:
    """What a window has gathered, by terms digest."""
    rows = connection.execute(
        "SELECT terms, events, amount_nanos, microtokens FROM window_terms WHERE window_id = ? ORDER BY terms",
        (window,),
    )
    totals = {terms: TermsTotals(events, nanos, microtokens) for terms, events, nanos, microtokens in rows}
    for terms, contributor, score in connection.execute(
        "SELECT terms, contributor, score FROM window_scores WHERE window_id = ?", (window,)
    ):
        totals[terms].scores[contributor] = score
    return totals


def payouts(terms: Terms, totals: TermsTotals, currency: str) -> Iterator[Payout]:
    """How a window divides: the formula of payment, also used for what is accrued.

    Each role gets floor(amount * split_ppm / 10^6), the rest is residue; where several hold a role, its part is divided
    by their weights. The contributors' part and all microtokens are divided by `share_weights` of the net scores. Both
    by largest remainder.
    """
    part = {role: totals.amount_nanos * ppm // PPM for role, ppm in terms.split_ppm.items()}
    for role in HOLDERS:
        for name, amount in largest_remainder(part[role], terms.holders_of(role)).items():
            yield Payout(role, f"{role}:{name}", currency, amount)
    yield Payout("treasury", TREASURY, currency, part["treasury"])
    yield Payout("residue", RESIDUE, currency, totals.amount_nanos - sum(part.values()))
    if terms.declared:
        weights = share_weights(totals.scores, terms.declared, terms.fidelity_ppm)
        yield from _contributors(part["contributors"], weights, currency)
        yield from _contributors(totals.microtokens, weights, MICROTOKEN)


def _contributors(total: int, weights: Mapping[str, int], unit: str) -> Iterator[Payout]:
    for name, amount in largest_remainder(total, weights).items():
        yield Payout("contributor", f"contributor:{name}", unit, amount)


def close_open_window(connection: Connection, catalog: Catalog, currency: str, time_us: int) -> int | None:
    """Pay the open window; its number, or None when there is none."""
    found = find_open_window(connection)
    if found is None:
        return None
    window = found[0]
    postings = Postings(connection, time_us)
    for digest, totals in read_totals(connection, window).items():
        for payout in payouts(catalog.terms(connection, digest), totals, currency):
            if payout.amount:
                _pay(postings, window, digest, payout)
    postings.flush()
    connection.execute("UPDATE windows SET closed_us = ? WHERE id = ?", (time_us, window))
    return window


def _pay(postings: Postings, window: int, terms_digest: str, payout: Payout) -> None:
    debit = postings.open(clearing(terms_digest), payout.unit, overdraft=False)
    credit = postings.open(payout.account, payout.unit, overdraft=False)
    identifier = f"window/{window}/{terms_digest[7:23]}/{payout.account}/{payout.unit}"
    transfer = Transfer(
        identifier, debit.name, credit.name, payout.unit, payout.amount, payout.role, window, terms_digest
    )
    postings.post(transfer, debit, credit)
