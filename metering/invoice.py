"""Invoices: what a tenant used in a period, and what it owes for it (docs/formats/invoice.md)."""

from __future__ import annotations

from typing import Any

from metering.billing_profile import read_profile, tax_nanos, tax_of
from metering.billing_record import ISSUER, load_document, read_states
from metering.event import rfc3339
from metering.invoice_payment import outstanding_nanos
from metering.ledger import Ledger, receivable, wallet
from metering.money import format_nanos, format_ppm
from metering.period import Period, parse_period
from metering.receipts_root import receipts_root
from metering.store import Connection

INVOICE_TYPE = "org.openledger.invoice.v1"
KIND_LABELS = {"prompt": "prompt tokens", "cached": "cached prompt tokens", "completion": "completion tokens"}


def build_invoice(ledger: Ledger, tenant: str, period: str, issuer: str = ISSUER) -> dict[str, Any]:
    """The invoice of `YYYY-MM` or `YYYY-MM-DD` (else PeriodInvalid): the finalised one, or else the draft as of now."""
    span = parse_period(period)
    with ledger.store.read() as connection:
        rows = connection.execute(
            "SELECT number FROM invoices WHERE issuer = ? AND tenant = ? AND period = ? AND state <> 'void'",
            (issuer, tenant, span.name),
        )
        if rows:
            return view_invoice(connection, ledger.currency, issuer, rows[0][0])
        draft = compose_invoice(connection, ledger.currency, tenant, span, issuer)
    return {**draft, "status": "draft"}


def compose_invoice(
    connection: Connection, currency: str, tenant: str, span: Period, issuer: str, **known: Any
) -> dict[str, Any]:
    """The document of a draft; `known` (number, issued, due, receipts) makes it final.

    subtotal_nanos = sum of the lines = debited_nanos + owed_nanos, read from the transfers themselves;
    net_nanos = subtotal_nanos - adjustments; total_nanos = net_nanos + tax.
    """
    seller, client = read_profile(connection, issuer), read_profile(connection, tenant)
    lines = _lines(connection, tenant, span)
    adjustments = _adjustments(connection, tenant, span)
    label, rate_ppm = tax_of(seller, client)
    subtotal_nanos = sum(line["amount_nanos"] for line in lines)
    net_nanos = subtotal_nanos - sum(one["amount_nanos"] for one in adjustments)
    tax = tax_nanos(net_nanos, rate_ppm)
    return {
        "type": INVOICE_TYPE,
        "number": None,
        "issued": None,
        "due": None,
        "receipts": known.pop("receipts", None) or receipts_root(connection, tenant, span),
        **known,
        "issuer": seller.party(),
        "client": client.party(),
        "tenant": tenant,
        "period": span.name,
        "from": rfc3339(span.start_us),
        "to": rfc3339(span.end_us),
        "currency": currency,
        "lines": lines,
        "adjustments": adjustments,
        "subtotal_nanos": subtotal_nanos,
        "debited_nanos": _moved(connection, wallet(tenant), currency, "usage", span),
        "owed_nanos": _moved(connection, receivable(tenant), currency, "owed", span),
        "net_nanos": net_nanos,
        "tax": {"label": label, "rate_ppm": rate_ppm, "amount_nanos": tax},
        "total_nanos": net_nanos + tax,
        "note": seller.note,
    }


def view_invoice(connection: Connection, currency: str, issuer: str, number: str) -> dict[str, Any]:
    """A finalised invoice: its unchanging document, and where it stands now. The row must exist."""
    rows = connection.execute(
        "SELECT state, digest, tax_owed_nanos FROM invoices WHERE issuer = ? AND number = ?", (issuer, number)
    )
    state, digest, tax_owed_nanos = rows[0]
    document = load_document(connection, digest)
    due_nanos = 0
    if state == "open":
        due_nanos = outstanding_nanos(connection, currency, document["tenant"], document["period"], tax_owed_nanos)
    notes = connection.execute(
        "SELECT number, amount_nanos, tax_nanos FROM credit_notes WHERE issuer = ? AND invoice = ? ORDER BY number",
        (issuer, number),
    )
    return {
        **document,
        "status": state,
        "digest": digest,
        "amount_due_nanos": due_nanos,
        "credit_notes": [
            {"number": name, "amount_nanos": amount, "tax_nanos": tax, "total_nanos": amount + tax}
            for name, amount, tax in notes
        ],
        "history": read_states(connection, f"{issuer}/{number}"),
    }


def render_invoice(invoice: dict[str, Any]) -> str:
    """The same as readable text."""
    currency = invoice["currency"]
    number = f" {invoice['number']}" if invoice["number"] else ""
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
    out = [f"INVOICE{number} ({invoice['status']})  {invoice['tenant']}  {invoice['period']}", ""]
    for row in [header, *rows]:
        left = [row[i].ljust(widths[i]) for i in (0, 1)]
        right = [row[i].rjust(widths[i]) for i in (2, 3, 4)]
        out.append("  ".join([*left, *right]))
    out += ["", *_render_totals(invoice)]
    return "\n".join(out) + "\n"


def _render_totals(invoice: dict[str, Any]) -> list[str]:
    currency, tax = invoice["currency"], invoice["tax"]
    out = []
    if invoice["adjustments"] or tax["amount_nanos"]:
        out.append(f"subtotal {format_nanos(invoice['subtotal_nanos'])} {currency}")
    for one in invoice["adjustments"]:
        out.append(f"  {one['credit_note']} ({one['reason']}) -{format_nanos(one['amount_nanos'])} {currency}")
    if tax["amount_nanos"]:
        rate = format_ppm(tax["rate_ppm"])
        out.append(f"  {tax['label']} {rate} {format_nanos(tax['amount_nanos'])} {currency}")
    out.append(f"total {format_nanos(invoice['total_nanos'])} {currency}")
    out.append(f"  usage paid from credit {format_nanos(invoice['debited_nanos'])} {currency}")
    if invoice["owed_nanos"]:
        out.append(f"  usage owed {format_nanos(invoice['owed_nanos'])} {currency}")
    for note in invoice.get("credit_notes", ()):
        out.append(f"  credited by {note['number']} {format_nanos(note['total_nanos'])} {currency}")
    if invoice.get("amount_due_nanos"):
        out.append(f"due {format_nanos(invoice['amount_due_nanos'])} {currency} by {invoice['due'][:10]}")
    out.append(f"receipts {invoice['receipts']['count']}, root {invoice['receipts']['root']}")
    return out


def _lines(connection: Connection, tenant: str, span: Period) -> list[dict[str, Any]]:
    names = ("model", "adapter", "kind", "unit_nanos", "requests", "quantity", "amount_nanos")
    rows = connection.execute(
        "SELECT model, adapter, kind, unit_nanos, CAST(sum(requests) AS BIGINT), CAST(sum(quantity) AS BIGINT),"
        " CAST(sum(amount_nanos) AS BIGINT) FROM usage_totals"
        " WHERE tenant = ? AND day >= ? AND day <= ? GROUP BY model, adapter, kind, unit_nanos"
        " ORDER BY model, adapter, kind DESC, unit_nanos",
        (tenant, span.first.isoformat(), span.last.isoformat()),
    )
    lines = [dict(zip(names, row, strict=True)) for row in rows]
    return [{**line, "adapter": line["adapter"] or None} for line in lines]


def _adjustments(connection: Connection, tenant: str, span: Period) -> list[dict[str, Any]]:
    """Credit notes for requests of the month that were upheld before its invoice was finalised."""
    rows = connection.execute(
        "SELECT number, request_id, amount_nanos FROM credit_notes"
        " WHERE tenant = ? AND period = ? AND invoice IS NULL ORDER BY number",
        (tenant, span.name),
    )
    return [
        {"credit_note": number, "request_id": request_id, "amount_nanos": amount, "reason": f"dispute of {request_id}"}
        for number, request_id, amount in rows
    ]


def _moved(connection: Connection, account: str, unit: str, code: str, span: Period) -> int:
    """Sum of the transfers of `code` out of an account in the period."""
    rows = connection.execute(
        "SELECT coalesce(sum(t.amount), 0) FROM transfers t JOIN accounts a ON a.id = t.debit"
        " WHERE a.name = ? AND a.unit = ? AND t.code = ? AND (t.code = 'usage' OR t.code = 'owed')"
        " AND t.time_us >= ? AND t.time_us < ?",
        (account, unit, code, span.start_us, span.end_us),
    )
    return int(rows[0][0])
