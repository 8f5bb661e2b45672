"""Credit notes: what an issuer gives back, as a numbered document and the transfers that do it."""

from __future__ import annotations

from typing import Any

from metering.billing_profile import read_profile, tax_nanos
from metering.billing_record import CREDIT_NOTE, ISSUER, load_document, next_number, record_state, store_document
from metering.billing_status import BillingStatus
from metering.event import rfc3339
from metering.invoice_lifecycle import check_reason
from metering.invoice_payment import CORRECTIONS, TAX, mark_paid, repay
from metering.ledger import Ledger, now_us, wallet
from metering.postings import Postings, Transfer
from metering.store import Connection

CREDIT_NOTE_TYPE = "org.openledger.credit-note.v1"


def credit_invoice(ledger: Ledger, number: str, amount_nanos: int, reason: str, issuer: str = ISSUER) -> dict[str, Any]:
    """Give back a net amount of a finalised invoice, and its part of the tax, at the issuer's own cost.

    Refuses `invoice_unknown`, `invoice_not_open` (void), `amount_invalid`, `credit_exceeds_invoice`, `reason_missing`.
    """
    check_reason(reason)
    if type(amount_nanos) is not int or amount_nanos <= 0:
        raise BillingStatus.AMOUNT_INVALID.refuse("a positive integer of nanos")
    with ledger.store.write() as connection:
        rows = connection.execute(
            "SELECT tenant, period, state FROM invoices WHERE issuer = ? AND number = ?" + connection.row_lock,
            (issuer, number),
        )
        if not rows:
            raise BillingStatus.INVOICE_UNKNOWN.refuse(number)
        tenant, period, state = rows[0]
        if state == "void":
            raise BillingStatus.INVOICE_NOT_OPEN.refuse(f"{number} is void")
        postings = Postings(connection, now_us())
        postings.open(CORRECTIONS, ledger.currency, overdraft=True)
        note = issue_credit_note(
            connection, postings, ledger.currency, issuer, CORRECTIONS, tenant, period, amount_nanos, reason
        )
        mark_paid(connection, ledger.currency, tenant, now_us())
        return note


def issue_credit_note(
    connection: Connection,
    postings: Postings,
    currency: str,
    issuer: str,
    source: str,
    tenant: str,
    period: str,
    amount_nanos: int,
    reason: str,
    request_id: str | None = None,
) -> dict[str, Any]:
    """Move the amount from account `source` to the tenant's wallet (which first repays what it owes), with a document.

    Where the month has its invoice, the note belongs to it and gives back its part of the tax; else the month's invoice
    will show it. Flushes the postings.
    """
    number = next_number(connection, issuer, CREDIT_NOTE)
    invoice = _find_invoice(connection, tenant, period)
    tax = _tax_part(connection, invoice, amount_nanos) if invoice else 0
    moves = [(f"credit-note/{number}/amount", source, amount_nanos, "refund")]
    if tax:
        moves.append((f"credit-note/{number}/tax", TAX, tax, "tax-refund"))
    client = postings.open(wallet(tenant), currency, overdraft=False)
    for identifier, account, amount, code in moves:
        debit = postings.open(account, currency, overdraft=False)
        postings.post(Transfer(identifier, account, client.name, currency, amount, code), debit, client)
    repay(postings, currency, tenant, f"credit-note/{number}")
    postings.flush()
    time_us = now_us()
    document = {
        "type": CREDIT_NOTE_TYPE,
        "number": number,
        "issued": rfc3339(time_us),
        "issuer": read_profile(connection, issuer).party(),
        "client": read_profile(connection, tenant).party(),
        "tenant": tenant,
        "period": period,
        "invoice": invoice["number"] if invoice else None,
        "invoice_digest": invoice["digest"] if invoice else None,
        "request_id": request_id,
        "reason": reason,
        "currency": currency,
        "amount_nanos": amount_nanos,
        "tax_nanos": tax,
        "total_nanos": amount_nanos + tax,
        "transfers": [
            {"id": identifier, "debit": account, "credit": client.name, "amount": amount, "code": code}
            for identifier, account, amount, code in moves
        ],
    }
    digest = store_document(connection, "credit_note", document)
    connection.execute(
        "INSERT INTO credit_notes (issuer, number, tenant, invoice, period, request_id, digest, amount_nanos,"
        " tax_nanos) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (issuer, number, tenant, document["invoice"], period, request_id, digest, amount_nanos, tax),
    )
    record_state(connection, f"{issuer}/{number}", "issued", time_us, reason)
    return {**document, "digest": digest}


def get_credit_note(ledger: Ledger, number: str, issuer: str = ISSUER) -> dict[str, Any]:
    """A credit note's document and digest. Refuses `credit_note_unknown`."""
    with ledger.store.read() as connection:
        rows = connection.execute("SELECT digest FROM credit_notes WHERE issuer = ? AND number = ?", (issuer, number))
        if not rows:
            raise BillingStatus.CREDIT_NOTE_UNKNOWN.refuse(number)
        return {**load_document(connection, rows[0][0]), "digest": rows[0][0]}


def list_credit_notes(ledger: Ledger, tenant: str | None = None, issuer: str = ISSUER) -> list[dict[str, Any]]:
    """Credit notes by number, of one tenant or of all."""
    names = ("number", "tenant", "invoice", "period", "request_id", "amount_nanos", "tax_nanos")
    with ledger.store.read() as connection:
        rows = connection.execute(
            f"SELECT {', '.join(names)} FROM credit_notes WHERE issuer = ?"
            + (" AND tenant = ?" if tenant is not None else "")
            + " ORDER BY number",
            (issuer,) if tenant is None else (issuer, tenant),
        )
    notes = [dict(zip(names, row, strict=True)) for row in rows]
    return [
        {
            "object": "credit_note",
            "currency": ledger.currency,
            **note,
            "total_nanos": note["amount_nanos"] + note["tax_nanos"],
        }
        for note in notes
    ]


def _find_invoice(connection: Connection, tenant: str, period: str) -> dict[str, Any] | None:
    rows = connection.execute(
        "SELECT digest FROM invoices WHERE tenant = ? AND period = ? AND state <> 'void'" + connection.row_lock,
        (tenant, period),
    )
    return {**load_document(connection, rows[0][0]), "digest": rows[0][0]} if rows else None


def _tax_part(connection: Connection, invoice: dict[str, Any], amount_nanos: int) -> int:
    """Tax on this part of the invoice. Rounded on what was credited in all, so that the parts add up to its tax."""
    rows = connection.execute(
        "SELECT coalesce(sum(amount_nanos), 0) FROM credit_notes WHERE tenant = ? AND invoice = ?",
        (invoice["tenant"], invoice["number"]),
    )
    before = int(rows[0][0])
    if before + amount_nanos > invoice["net_nanos"]:
        detail = f"{before + amount_nanos} of {invoice['net_nanos']} nanos, net, on {invoice['number']}"
        raise BillingStatus.CREDIT_EXCEEDS_INVOICE.refuse(detail)
    rate_ppm = invoice["tax"]["rate_ppm"]
    return tax_nanos(before + amount_nanos, rate_ppm) - tax_nanos(before, rate_ppm)
