"""Both conservation laws and every invariant between journal, ledger and log (`openledger check`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metering.check_billing import check_billing
from metering.check_log import check_log
from metering.config import MeteringConfig
from metering.errors import EventInvalid
from metering.event import decode_event
from metering.forwarder_state import unsettled_from
from metering.journal_reader import JournalReader
from metering.ledger import MICROTOKEN, MICROTOKENS_PER_TOKEN, Ledger
from metering.store import Connection
from metering.windows import BASE_ONLY

LOOK_AHEAD = 100_000  # journal records that check reads beyond the settled ones


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken invariant: a stable name and what was found, with the numbers."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings (clean when there are none) and the totals that the two laws compared."""

    findings: tuple[Finding, ...]
    totals: dict[str, int]

    @property
    def clean(self) -> bool:
        return not self.findings


def run_checks(config: MeteringConfig, ledger: Ledger, generated: Mapping[str, int] | None = None) -> CheckReport:
    """Check everything. `generated` is the engine's tally: request id -> completion_tokens (None: not compared).

    A request with an open hold is in flight, not a finding; records that wait in the journal count as metered and are
    reported as `unsettled_records`. The tally moves while requests run: under load, a `generated_not_metered` or
    `metered_not_generated` is real only when a second check still shows it.
    """
    with ledger.store.read() as connection:  # one snapshot for all of it
        waiting = _waiting(config, connection)
        totals = _totals(connection, ledger.currency)
        totals["unsettled_records"] = len(waiting)
        findings = [
            *_check_tokens(totals),
            *_check_money(totals),
            *_check_accounts(connection),
            *_check_windows(connection, ledger.currency),
            *_check_holds(connection),
            *_check_quarantine(connection),
            *(Finding(*broken) for broken in check_log(connection, config)),
            *(Finding(*broken) for broken in check_billing(connection, ledger.currency)),
        ]
        if generated is not None:
            totals["generated_tokens"] = sum(generated.values())
            findings += _check_generated(connection, generated, waiting)
    return CheckReport(tuple(findings), totals)


def _totals(connection: Connection, currency: str) -> dict[str, int]:
    """The terms of both conservation laws, from transfers and usage rows (not from balances)."""
    usage = connection.execute(
        "SELECT count(*), coalesce(sum(completion_tokens), 0), coalesce(sum(amount_nanos), 0) FROM usage"
    )[0]
    totals = {"metered_requests": usage[0], "metered_tokens": usage[1], "rated_nanos": usage[2]}
    by_code = connection.execute(
        "SELECT a.unit, t.code, sum(t.amount) FROM transfers t JOIN accounts a ON a.id = t.credit"
        " GROUP BY a.unit, t.code"
    )
    moved = {(unit, code): amount for unit, code, amount in by_code}
    totals["debited_nanos"] = moved.get((currency, "usage"), 0)
    totals["owed_nanos"] = moved.get((currency, "owed"), 0)
    totals["credited_nanos"] = sum(moved.get((currency, code), 0) for code in ("contributor", "trainer", "governance"))
    totals["fee_nanos"] = sum(moved.get((currency, code), 0) for code in ("host", "treasury"))
    totals["residue_nanos"] = moved.get((currency, "residue"), 0)
    totals["issued_microtokens"] = moved.get((MICROTOKEN, "generated"), 0)
    totals["contributor_microtokens"] = moved.get((MICROTOKEN, "contributor"), 0)
    for name, account, unit in (
        ("base_only_microtokens", BASE_ONLY, MICROTOKEN),
        ("open_nanos", "clearing:%", currency),
        ("open_microtokens", "clearing:%", MICROTOKEN),
    ):
        rows = connection.execute(
            "SELECT coalesce(sum(credits - debits), 0) FROM accounts WHERE name LIKE ? AND unit = ?", (account, unit)
        )
        totals[name] = int(rows[0][0])
    return {name: int(value) for name, value in totals.items()}


def _check_tokens(totals: dict[str, int]) -> Iterator[Finding]:
    metered = totals["metered_tokens"] * MICROTOKENS_PER_TOKEN
    if metered != totals["issued_microtokens"]:
        yield Finding("metered_not_issued", f"{metered} microtokens metered, {totals['issued_microtokens']} issued")
    parts = ("contributor_microtokens", "base_only_microtokens", "open_microtokens")
    if totals["issued_microtokens"] != sum(totals[name] for name in parts):
        yield Finding("microtokens_not_conserved", _numbers(totals, "issued_microtokens", *parts))


def _check_money(totals: dict[str, int]) -> Iterator[Finding]:
    if totals["rated_nanos"] != totals["debited_nanos"] + totals["owed_nanos"]:
        yield Finding("rated_not_debited", _numbers(totals, "rated_nanos", "debited_nanos", "owed_nanos"))
    parts = ("credited_nanos", "fee_nanos", "residue_nanos", "open_nanos")
    if totals["debited_nanos"] + totals["owed_nanos"] != sum(totals[name] for name in parts):
        yield Finding("money_not_conserved", _numbers(totals, "debited_nanos", "owed_nanos", *parts))


def _check_accounts(connection: Connection) -> Iterator[Finding]:
    """Balances are the sums of transfers, and none that may not is below zero."""
    for name, unit, available in connection.execute(
        "SELECT name, unit, credits - debits - held FROM accounts WHERE overdraft = 0 AND credits - debits - held < 0"
    ):
        yield Finding("balance_negative", f"{name} has {available} {unit}")
    rows = connection.execute(
        "SELECT a.name, a.unit, a.credits, a.debits, coalesce(c.amount, 0), coalesce(d.amount, 0) FROM accounts a"
        " LEFT JOIN (SELECT credit AS id, sum(amount) AS amount FROM transfers GROUP BY credit) c ON c.id = a.id"
        " LEFT JOIN (SELECT debit AS id, sum(amount) AS amount FROM transfers GROUP BY debit) d ON d.id = a.id"
        " WHERE a.credits <> coalesce(c.amount, 0) OR a.debits <> coalesce(d.amount, 0)"
    )
    for name, unit, credits, debits, credited, debited in rows:
        detail = f"{name} ({unit}): credits {credits} vs {credited}, debits {debits} vs {debited}"
        yield Finding("balance_not_transfers", detail)


def _check_windows(connection: Connection, currency: str) -> Iterator[Finding]:
    """Every clearing account holds what the open window gathered, and nothing of closed ones."""
    gathered = {
        f"clearing:{terms}": (nanos, microtokens)
        for terms, nanos, microtokens in connection.execute(
            "SELECT t.terms, t.amount_nanos, t.microtokens FROM window_terms t JOIN windows w ON w.id = t.window_id"
            " WHERE w.closed_us IS NULL"
        )
    }
    rows = connection.execute("SELECT name, unit, credits - debits FROM accounts WHERE name LIKE 'clearing:%'")
    for name, unit, balance in rows:
        expected = gathered.get(name, (0, 0))[0 if unit == currency else 1]
        if balance != expected:
            yield Finding("clearing_not_window", f"{name} has {balance} {unit}, the open window gathered {expected}")


def _check_holds(connection: Connection) -> Iterator[Finding]:
    rows = connection.execute(
        "SELECT a.name, a.held, coalesce(h.amount, 0) FROM accounts a LEFT JOIN (SELECT account, sum(amount) AS amount"
        " FROM holds WHERE state = 'pending' GROUP BY account) h ON h.account = a.id"
        " WHERE a.held <> coalesce(h.amount, 0)"
    )
    for name, held, pending in rows:
        yield Finding("held_not_holds", f"{name} has {held} held, its pending holds are {pending}")


def _check_quarantine(connection: Connection) -> Iterator[Finding]:
    for event_id, reason in connection.execute("SELECT event_id, reason FROM quarantine ORDER BY time_us"):
        yield Finding("quarantined", f"{event_id or 'unreadable record'}: {reason}")


def _check_generated(
    connection: Connection, generated: Mapping[str, int], waiting: Mapping[str, int]
) -> Iterator[Finding]:
    """The engine's tally against what was metered, request by request."""
    metered: dict[str, int] = dict(connection.execute("SELECT id, completion_tokens FROM usage"))
    metered.update({name: tokens for name, tokens in waiting.items() if name not in metered})
    in_flight = {row[0] for row in connection.execute("SELECT id FROM holds WHERE state = 'pending'")}
    for request_id, tokens in generated.items():
        if request_id in metered:
            if metered[request_id] != tokens:
                detail = f"{request_id}: {tokens} tokens generated, {metered[request_id]} metered"
                yield Finding("generated_not_metered", detail)
        elif request_id not in in_flight and tokens:
            yield Finding("generated_not_metered", f"{request_id}: {tokens} tokens generated, no usage event")
    for request_id, tokens in metered.items():
        if tokens and request_id not in generated:
            yield Finding("metered_not_generated", f"{request_id}: {tokens} tokens metered, none in the tally")


def _waiting(config: MeteringConfig, connection: Connection) -> dict[str, int]:
    """Completion tokens of the events that the journal holds and the ledger does not, by request id."""
    waiting: dict[str, int] = {}
    cursors = dict(connection.execute("SELECT segment, next_offset FROM journal_cursors"))
    for record in JournalReader(config.journal_dir).read(unsettled_from(config, cursors), LOOK_AHEAD):
        try:
            event = decode_event(record.payload)
        except EventInvalid:
            continue  # the settler will put it into quarantine
        waiting[event.id] = event.completion_tokens
    if config.events_url:  # what is on the bus is settled in any order
        for table, name in (("usage", "id"), ("quarantine", "event_id")):
            for found in connection.select(name, table, name, list(waiting)):
                waiting.pop(found[0], None)
    return waiting


def _numbers(totals: Mapping[str, Any], *names: str) -> str:
    return ", ".join(f"{name} {totals[name]}" for name in names)
