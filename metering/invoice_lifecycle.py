"""The life of an invoice: draft, open, then paid or void. Each step is one transaction; what is final never changes."""

from __future__ import annotations

from typing import Any

from metering.billing_profile import read_profile
from metering.billing_record import INVOICE, ISSUER, next_number, record_state, store_document
from metering.billing_status import BillingStatus
from metering.event import rfc3339
from metering.invoice import compose_invoice, view_invoice
from metering.invoice_payment import TAX, charge_tax, mark_paid, repay
from metering.ledger import Ledger, now_us, wallet
from metering.period import parse_period
from metering.postings import Postings, Transfer
from metering.receipts_root import leaf_range, receipts_root
from metering.store import Connection

CLOSING_US = 60_000_000  # a settlement that began before midnight has ended by then
DAY_US = 86_400_000_000
REASON_MAX = 500


def finalise_invoice(
    ledger: Ledger, tenant: str, period: str, issuer: str = ISSUER, at_us: int | None = None
) -> dict[str, Any]:
    """Draft -> open (and paid at once when nothing is due): number, document, log entry and tax in one transaction.

    Refuses `period_not_a_month`, `period_not_over` (until a minute after its end), `period_closed` (it has its
    invoice), `nothing_to_invoice`; raises PeriodInvalid. `at_us` is the time of issue, now by default.
    """
    span = parse_period(period)
    time_us = now_us() if at_us is None else at_us
    if span.first == span.last:
        raise BillingStatus.PERIOD_NOT_A_MONTH.refuse(period)
    if not span.is_over(time_us - CLOSING_US):
        raise BillingStatus.PERIOD_NOT_OVER.refuse(f"{period} ends at {rfc3339(span.end_us)}")
    with ledger.store.read() as connection:  # no lock is held meanwhile: 2.3 s for a million receipts (one machine)
        leaves = leaf_range(connection, span.start_us, span.end_us)
        receipts = receipts_root(connection, tenant, span)
    with ledger.store.write() as connection:
        connection.take_turn()  # what is being settled is settled now, and nothing more in this month (Settler)
        if leaf_range(connection, span.start_us, span.end_us) != leaves:
            receipts = receipts_root(connection, tenant, span)
        number = next_number(connection, issuer, INVOICE)  # its row's lock orders concurrent calls
        _require_no_invoice(connection, tenant, period)
        terms_days = read_profile(connection, issuer).terms_days
        issued = {"number": number, "issued": rfc3339(time_us), "due": rfc3339(time_us + terms_days * DAY_US)}
        document = compose_invoice(connection, ledger.currency, tenant, span, issuer, receipts=receipts, **issued)
        if not document["lines"]:
            raise BillingStatus.NOTHING_TO_INVOICE.refuse(f"{tenant} used nothing in {period}")
        tax = document["tax"]["amount_nanos"]
        postings = Postings(connection, time_us)
        owed = charge_tax(postings, ledger.currency, tenant, number, tax) if tax else 0
        postings.flush()
        digest = store_document(connection, "invoice", document)
        connection.execute(
            "INSERT INTO invoices (issuer, number, tenant, period, state, digest, total_nanos, tax_nanos,"
            " tax_owed_nanos) VALUES (?, ?, ?, ?, 'open', ?, ?, ?, ?)",
            (issuer, number, tenant, period, digest, document["total_nanos"], tax, owed),
        )
        record_state(connection, f"{issuer}/{number}", "open", time_us)
        mark_paid(connection, ledger.currency, tenant, time_us)
        return view_invoice(connection, ledger.currency, issuer, number)


def pay_invoice(ledger: Ledger, number: str, issuer: str = ISSUER) -> dict[str, Any]:
    """Pay what is due from the wallet, oldest month first, as far as it goes. Refuses `invoice_unknown`."""
    with ledger.store.write() as connection:
        tenant, _, _ = _read_row(connection, issuer, number)
        postings = Postings(connection, now_us())
        repay(postings, ledger.currency, tenant, f"invoice/{number}/{now_us()}")
        postings.flush()
        mark_paid(connection, ledger.currency, tenant, now_us())
        return view_invoice(connection, ledger.currency, issuer, number)


def void_invoice(ledger: Ledger, number: str, reason: str, issuer: str = ISSUER) -> dict[str, Any]:
    """Open -> void: the document was wrong. Its tax goes back, its number stays taken, its month can be invoiced again.

    Refuses `invoice_unknown`, `invoice_not_open` (a paid one is corrected by credit notes), `invoice_has_credit_notes`,
    `reason_missing`.
    """
    check_reason(reason)
    with ledger.store.write() as connection:
        tenant, state, tax_nanos = _read_row(connection, issuer, number)
        if state != "open":
            raise BillingStatus.INVOICE_NOT_OPEN.refuse(f"{number} is {state}")
        notes = connection.execute(
            "SELECT number FROM credit_notes WHERE issuer = ? AND invoice = ? ORDER BY number", (issuer, number)
        )
        if notes:
            raise BillingStatus.INVOICE_HAS_CREDIT_NOTES.refuse(", ".join(row[0] for row in notes))
        postings = Postings(connection, now_us())
        if tax_nanos:
            tax = postings.open(TAX, ledger.currency, overdraft=False)
            client = postings.open(wallet(tenant), ledger.currency, overdraft=False)
            transfer = Transfer(f"invoice/{number}/void", TAX, client.name, ledger.currency, tax_nanos, "tax-refund")
            postings.post(transfer, tax, client)
            repay(postings, ledger.currency, tenant, f"invoice/{number}/void")
        postings.flush()
        connection.execute("UPDATE invoices SET state = 'void' WHERE issuer = ? AND number = ?", (issuer, number))
        record_state(connection, f"{issuer}/{number}", "void", now_us(), reason)
        mark_paid(connection, ledger.currency, tenant, now_us())
        return view_invoice(connection, ledger.currency, issuer, number)


def get_invoice(ledger: Ledger, number: str, issuer: str = ISSUER) -> dict[str, Any]:
    """A finalised invoice as it stands; one that a top-up has paid since becomes paid now. `invoice_unknown`."""
    with ledger.store.read() as connection:
        tenant, state, _ = _read_row(connection, issuer, number)
        view = view_invoice(connection, ledger.currency, issuer, number)
    if state != "open" or view["amount_due_nanos"]:
        return view
    with ledger.store.write() as connection:
        mark_paid(connection, ledger.currency, tenant, now_us())
        return view_invoice(connection, ledger.currency, issuer, number)


def list_invoices(ledger: Ledger, tenant: str | None = None, issuer: str = ISSUER) -> list[dict[str, Any]]:
    """Finalised invoices by number, of one tenant or of all."""
    names = ("number", "tenant", "period", "status", "digest", "total_nanos")
    with ledger.store.read() as connection:
        rows = connection.execute(
            "SELECT number, tenant, period, state, digest, total_nanos FROM invoices WHERE issuer = ?"
            + (" AND tenant = ?" if tenant is not None else "")
            + " ORDER BY number",
            (issuer,) if tenant is None else (issuer, tenant),
        )
    return [{"object": "invoice", "currency": ledger.currency, **dict(zip(names, row, strict=True))} for row in rows]


def check_reason(reason: str) -> None:
    """Refuses `reason_missing` unless it is 1 to 500 printable characters."""
    if not isinstance(reason, str) or not 1 <= len(reason) <= REASON_MAX or not reason.isprintable():
        raise BillingStatus.REASON_MISSING.refuse(f"1 to {REASON_MAX} printable characters")


def _require_no_invoice(connection: Connection, tenant: str, period: str) -> None:
    rows = connection.execute(
        "SELECT number FROM invoices WHERE tenant = ? AND period = ? AND state <> 'void'", (tenant, period)
    )
    if rows:
        raise BillingStatus.PERIOD_CLOSED.refuse(f"{tenant} has {rows[0][0]} for {period}")


def _read_row(connection: Connection, issuer: str, number: str) -> tuple[str, str, int]:
    """Tenant, state and tax of an invoice."""
    rows = connection.execute(
        "SELECT tenant, state, tax_nanos FROM invoices WHERE issuer = ? AND number = ?" + connection.row_lock,
        (issuer, number),
    )
    if not rows:
        raise BillingStatus.INVOICE_UNKNOWN.refuse(number)
    return rows[0]
