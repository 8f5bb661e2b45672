"""What of an invoice is still unpaid, and paying it from the wallet. Usage is prepaid: only shortfalls are ever due."""

from __future__ import annotations

from metering.billing_record import record_state
from metering.ledger import receivable, wallet
from metering.period import parse_period
from metering.postings import Postings, Transfer
from metering.store import Connection

TAX = "tax"  # tax charged and not yet remitted
CORRECTIONS = "corrections"  # its debits are what the issuer itself paid for credit notes


def outstanding_nanos(connection: Connection, currency: str, tenant: str, period: str, tax_owed_nanos: int) -> int:
    """What the tenant still owes of the usage and tax of a month.

    Repayments cover the oldest month first: with R repaid, E owed for earlier months and O for this one,
    outstanding = min(O, max(0, E + O - R)).
    """
    span = parse_period(period)
    rows = connection.execute(
        "SELECT id, credits FROM accounts WHERE name = ? AND unit = ?", (receivable(tenant), currency)
    )
    if not rows:
        return 0
    account, repaid = rows[0]
    owed = []
    for low, high in ((0, span.start_us), (span.start_us, span.end_us)):
        found = connection.execute(
            "SELECT coalesce(sum(amount), 0) FROM transfers WHERE debit = ? AND (code = 'usage' OR code = 'owed')"
            " AND time_us >= ? AND time_us < ?",
            (account, low, high),
        )
        owed.append(int(found[0][0]))
    taxes = connection.execute(
        "SELECT coalesce(sum(CASE WHEN state <> 'void' AND period < ? THEN tax_owed_nanos ELSE 0 END), 0),"
        " coalesce(sum(CASE WHEN state = 'void' THEN tax_owed_nanos ELSE 0 END), 0) FROM invoices WHERE tenant = ?",
        (period, tenant),
    )
    earlier, own = owed[0] + int(taxes[0][0]), owed[1] + tax_owed_nanos
    return min(own, max(0, earlier + own - (repaid - int(taxes[0][1]))))


def charge_tax(postings: Postings, currency: str, tenant: str, number: str, amount_nanos: int) -> int:
    """Take the tax of an invoice from the wallet, and what that lacks from `receivable`; the part that is owed."""
    client = postings.find(wallet(tenant), currency)
    paid_nanos = min(amount_nanos, max(0, client.available)) if client else 0
    owed_nanos = amount_nanos - paid_nanos
    tax = postings.open(TAX, currency, overdraft=False)
    if paid_nanos and client:
        postings.post(Transfer(f"invoice/{number}/tax", client.name, TAX, currency, paid_nanos, "tax"), client, tax)
    if owed_nanos:
        debtor = postings.open(receivable(tenant), currency, overdraft=True)
        transfer = Transfer(f"invoice/{number}/tax-owed", debtor.name, TAX, currency, owed_nanos, "tax")
        postings.post(transfer, debtor, tax)
    return owed_nanos


def repay(postings: Postings, currency: str, tenant: str, cause: str) -> None:
    """Pay what the tenant owes from what its wallet has; `cause` makes the transfer's id."""
    client, debtor = postings.find(wallet(tenant), currency), postings.find(receivable(tenant), currency)
    if client is None or debtor is None:
        return
    amount_nanos = min(-debtor.available, client.available)
    if amount_nanos > 0:
        transfer = Transfer(f"{cause}/repay", client.name, debtor.name, currency, amount_nanos, "repay")
        postings.post(transfer, client, debtor)


def mark_paid(connection: Connection, currency: str, tenant: str, time_us: int) -> list[str]:
    """Every open invoice of the tenant of which nothing is outstanding becomes paid; their numbers."""
    rows = connection.execute(
        "SELECT issuer, number, period, tax_owed_nanos FROM invoices WHERE tenant = ? AND state = 'open'"
        f" ORDER BY period{connection.row_lock}",
        (tenant,),
    )
    paid = []
    for issuer, number, period, tax_owed_nanos in rows:
        if outstanding_nanos(connection, currency, tenant, period, tax_owed_nanos) == 0:
            connection.execute("UPDATE invoices SET state = 'paid' WHERE issuer = ? AND number = ?", (issuer, number))
            record_state(connection, f"{issuer}/{number}", "paid", time_us)
            paid.append(number)
    return paid
