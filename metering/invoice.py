"""Invoices: what a tenant used in a period, by model and token kind (docs/formats/invoice.md)."""

from __future__ import annotations

from typing import Any

from metering.event import rfc3339
from metering.ledger import Ledger, now_us, receivable, wallet
from metering.money import format_nanos
from metering.period import Period, parse_period
from metering.store import Connection

KIND_LABELS = {"prompt": "prompt tokens", "cached": "cached prompt tokens", "completion": "completion tokens"}


def build_invoice(ledger: Ledger, tenant: str, period: str) -> dict[str, Any]:
    """The invoice of `YYYY-MM` or `YYYY-MM-DD` (else PeriodInvalid); its status is `draft` while the period lasts.

    Lines come from the totals kept beside each transfer, `debited_nanos` and `owed_nanos` from the transfers
    themselves: total_nanos = debited_nanos + owed_nanos, always.
    """
    span = parse_period(period)
    with ledger.store.read() as connection:
        lines = _lines(connection, tenant, span)
        debited_nanos = _moved(connection, wallet(tenant), ledger.currency, "usage", span)
        owed_nanos = _moved(connection, receivable(tenant), ledger.currency, "owed", span)
    return {
        "type": "org.openledger.invoice.v1",
        "tenant": tenant,
        "period": span.name,
        "from": rfc3339(span.start_us),
        "to": rfc3339(span.end_us),
        "status": "open" if span.is_over(now_us()) else "draft",
        "currency": ledger.currency,
        "lines": lines,
        "total_nanos": sum(line["amount_nanos"] for line in lines),
        "debited_nanos": debited_nanos,
        "owed_nanos": owed_nanos,
    }


def render_invoice(invoice: dict[str, Any]) -> str:
    """The same as readable text."""
    currency = invoice["currency"]
    title = f"INVOICE ({invoice['status']})  {invoice['tenant']}  {invoice['period']}"
    rows = [
        (
            line["model"],
            KIND_LABELS[line["kind"]],
            f"{line['quantity']:,}",
            format_nanos(line["unit_nanos"]),
            format_nanos(line["amount_nanos"]),
        )
        for line in invoice["lines"]
    ]
    header = ("model", "item", "quantity", f"{currency} each", f"{currency}")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(5)]
    out = [title, ""]
    for row in [header, *rows]:
        left = [row[i].ljust(widths[i]) for i in (0, 1)]
        right = [row[i].rjust(widths[i]) for i in (2, 3, 4)]
        out.append("  ".join([*left, *right]))
    out += ["", f"total {format_nanos(invoice['total_nanos'])} {currency}"]
    out.append(f"  paid from credit {format_nanos(invoice['debited_nanos'])} {currency}")
    if invoice["owed_nanos"]:
        out.append(f"  owed {format_nanos(invoice['owed_nanos'])} {currency}")
    return "\n".join(out) + "\n"


def _lines(connection: Connection, tenant: str, span: Period) -> list[dict[str, Any]]:
    names = ("model", "adapter", "kind", "unit_nanos", "requests", "quantity", "amount_nanos")
    rows = connection.execute(
        "SELECT model, adapter, kind, unit_nanos, sum(requests), sum(quantity), sum(amount_nanos) FROM usage_totals"
        " WHERE tenant = ? AND day >= ? AND day <= ? GROUP BY model, adapter, kind, unit_nanos"
        " ORDER BY model, adapter, kind DESC, unit_nanos",
        (tenant, span.first.isoformat(), span.last.isoformat()),
    )
    lines = [dict(zip(names, row, strict=True)) for row in rows]
    return [{**line, "adapter": line["adapter"] or None} for line in lines]


def _moved(connection: Connection, account: str, unit: str, code: str, span: Period) -> int:
    """Sum of the transfers of `code` out of an account in the period."""
    rows = connection.execute(
        "SELECT coalesce(sum(t.amount), 0) FROM transfers t JOIN accounts a ON a.id = t.debit"
        " WHERE a.name = ? AND a.unit = ? AND t.code = ? AND (t.code = 'usage' OR t.code = 'owed')"
        " AND t.time_us >= ? AND t.time_us < ?",
        (account, unit, code, span.start_us, span.end_us),
    )
    return rows[0][0]
