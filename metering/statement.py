"""Statements: what a person earned, by role and adapter, accrued and paid (docs/formats/statement.md)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from metering.catalog import Catalog
from metering.ledger import MICROTOKEN, Ledger
from metering.money import format_nanos
from metering.period import Period, parse_period
from metering.store import Connection
from metering.windows import find_open_window, payouts, read_totals

ROLES = ("contributor", "trainer", "host", "governance")


def build_statement(ledger: Ledger, account: str, period: str | None = None) -> dict[str, Any]:
    """Earnings of `account` in every role, a line for each role and terms digest.

    `paid` counts closed windows (of the period, when one is given); `accrued` is the open window by the same formula,
    provisional until it closes. `net_score_micronats` sums the signed scores of the windows that are counted.
    """
    span = parse_period(period) if period else None
    lines: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(_zeros)
    catalog = Catalog()
    with ledger.store.read() as connection:
        _add_paid(connection, account, span, lines)
        _add_accrued(connection, catalog, account, ledger.currency, lines)
        _add_scores(connection, account, span, lines)
        rows: list[dict[str, Any]] = []
        for (role, digest), amounts in sorted(lines.items()):
            terms = catalog.terms(connection, digest)
            named: dict[str, Any] = {"role": role, "terms": digest, "datanet": terms.datanet, "adapter": terms.adapter}
            rows.append({**named, **amounts})
    totals = {name: sum(row[name] for row in rows) for name in _zeros() if name != "net_score_micronats"}
    return {
        "type": "org.openledger.statement.v1",
        "account": account,
        "period": period,
        "currency": ledger.currency,
        "lines": rows,
        "totals": totals,
    }


def render_statement(statement: dict[str, Any]) -> str:
    """The same as readable text."""
    currency = statement["currency"]
    header = ("role", "datanet", "adapter", "paid", "accrued", "microtokens", "net score (nats)")
    rows = [
        (
            line["role"],
            line["datanet"] or "-",
            (line["adapter"] or "base model").removeprefix("sha256:")[:12],
            format_nanos(line["paid_nanos"]),
            format_nanos(line["accrued_nanos"]),
            f"{line['paid_microtokens'] + line['accrued_microtokens']:,}",
            _nats(line["net_score_micronats"]),
        )
        for line in statement["lines"]
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    out = [f"STATEMENT  {statement['account']}  {statement['period'] or 'all time'}  (in {currency})", ""]
    for row in [header, *rows]:
        left = [row[i].ljust(widths[i]) for i in range(3)]
        out.append("  ".join([*left, *(row[i].rjust(widths[i]) for i in range(3, len(header)))]))
    totals = statement["totals"]
    out += ["", f"paid {format_nanos(totals['paid_nanos'])} {currency}"]
    out.append(f"accrued {format_nanos(totals['accrued_nanos'])} {currency} (open window, provisional)")
    return "\n".join(out) + "\n"


def _zeros() -> dict[str, int]:
    return {
        "paid_nanos": 0,
        "accrued_nanos": 0,
        "paid_microtokens": 0,
        "accrued_microtokens": 0,
        "net_score_micronats": 0,
    }


def _add_paid(connection: Connection, account: str, span: Period | None, lines: Any) -> None:
    low, high = (span.start_us, span.end_us) if span else (0, 2**62)
    for role in ROLES:
        rows = connection.execute(
            "SELECT t.terms, a.unit, sum(t.amount) FROM transfers t JOIN accounts a ON a.id = t.credit"
            " WHERE a.name = ? AND t.window_id IS NOT NULL AND t.time_us >= ? AND t.time_us < ?"
            " GROUP BY t.terms, a.unit",
            (f"{role}:{account}", low, high),
        )
        for digest, unit, amount in rows:
            lines[role, digest]["paid_microtokens" if unit == MICROTOKEN else "paid_nanos"] += amount


def _add_accrued(connection: Connection, catalog: Catalog, account: str, currency: str, lines: Any) -> None:
    window = find_open_window(connection)
    if window is None:
        return
    names = {f"{role}:{account}": role for role in ROLES}
    for digest, totals in read_totals(connection, window[0]).items():
        for payout in payouts(catalog.terms(connection, digest), totals, currency):
            role = names.get(payout.account)
            if role is not None and payout.amount:
                unit = "accrued_microtokens" if payout.unit == MICROTOKEN else "accrued_nanos"
                lines[role, digest][unit] += payout.amount


def _add_scores(connection: Connection, account: str, span: Period | None, lines: Any) -> None:
    low, high = (span.start_us, span.end_us) if span else (0, 2**62)
    rows = connection.execute(
        "SELECT s.terms, sum(s.score) FROM window_scores s JOIN windows w ON w.id = s.window_id WHERE s.contributor = ?"
        " AND (w.closed_us IS NULL OR (w.closed_us >= ? AND w.closed_us < ?)) GROUP BY s.terms",
        (account, low, high),
    )
    for digest, score in rows:
        lines["contributor", digest]["net_score_micronats"] += score


def _nats(score_micronats: int) -> str:
    sign = "-" if score_micronats < 0 else ""
    return f"{sign}{abs(score_micronats) // 1_000_000}.{abs(score_micronats) % 1_000_000:06d}"
