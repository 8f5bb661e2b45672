"""The invariants of invoices, credit notes and disputes, for metering.check: (name, detail) of each that is broken."""

from __future__ import annotations

from collections.abc import Iterator

from metering.billing_record import load_document
from metering.canonical import digest
from metering.errors import CanonicalError
from metering.event import parse_rfc3339
from metering.store import Connection


def check_billing(connection: Connection, currency: str) -> Iterator[tuple[str, str]]:
    """Numbers without gaps, documents unchanged, invoices equal to transfers, frozen accounts equal to disputes."""
    yield from _check_numbers(connection)
    yield from _check_documents(connection)
    yield from _check_invoices(connection, currency)
    yield from _check_frozen(connection, currency)


def _check_numbers(connection: Connection) -> Iterator[tuple[str, str]]:
    last = {
        (row[0], row[1]): row[2] for row in connection.execute("SELECT issuer, series, last FROM billing_sequences")
    }
    given: dict[tuple[str, str], list[str]] = {key: [] for key in last}
    for table in ("invoices", "credit_notes"):
        for issuer, number in connection.execute(f"SELECT issuer, number FROM {table} ORDER BY number"):
            given.setdefault((issuer, number.rpartition("-")[0]), []).append(number)
    for (issuer, series), numbers in given.items():
        expected = {f"{series}-{n:06d}" for n in range(1, last.get((issuer, series), 0) + 1)}
        if expected != set(numbers):
            yield "number_gap", f"{issuer}: {sorted(expected ^ set(numbers))[:5]}"


def _check_documents(connection: Connection) -> Iterator[tuple[str, str]]:
    """Each row's document is there and still has its digest (the digest is a leaf, or waits to be one)."""
    for table, key in (("invoices", "number"), ("credit_notes", "number"), ("disputes", "id")):
        rows = connection.execute(
            f"SELECT r.{key}, r.digest, d.body FROM {table} r LEFT JOIN documents d ON d.digest = r.digest"
        )
        for name, expected, body in rows:
            if body is None or digest(bytes(body)) != expected:
                yield "billing_document_changed", f"{name} is not {expected}"


def _check_invoices(connection: Connection, currency: str) -> Iterator[tuple[str, str]]:
    """What an invoice says adds up, and is what the transfers of its month and its tax say now."""
    for number, tenant, name in connection.execute("SELECT number, tenant, digest FROM invoices"):
        try:
            document = load_document(connection, name)
        except (LookupError, CanonicalError):
            continue  # reported above
        moved = connection.execute(
            "SELECT coalesce(sum(t.amount), 0) FROM transfers t JOIN accounts a ON a.id = t.debit"
            " WHERE a.name IN (?, ?) AND a.unit = ? AND (t.code = 'usage' OR t.code = 'owed')"
            " AND t.time_us >= ? AND t.time_us < ?",
            (f"client:{tenant}", f"receivable:{tenant}", currency, *_bounds(document)),
        )
        lines = sum(line["amount_nanos"] for line in document["lines"])
        if not lines == document["subtotal_nanos"] == int(moved[0][0]):
            yield "invoice_not_transfers", f"{number}: lines {lines}, transfers {moved[0][0]}"
        adjusted = sum(one["amount_nanos"] for one in document["adjustments"])
        if document["total_nanos"] != lines - adjusted + document["tax"]["amount_nanos"]:
            yield "invoice_does_not_add_up", number
        charged = connection.execute(
            "SELECT coalesce(sum(amount), 0) FROM transfers WHERE id IN (?, ?)",
            (f"invoice/{number}/tax", f"invoice/{number}/tax-owed"),
        )
        if int(charged[0][0]) != document["tax"]["amount_nanos"]:
            yield "invoice_tax_not_transfers", f"{number}: {charged[0][0]} charged"


def _check_frozen(connection: Connection, currency: str) -> Iterator[tuple[str, str]]:
    """An open dispute's account holds exactly its amount; a resolved one's holds nothing; credit notes were paid."""
    rows = connection.execute(
        "SELECT d.id, d.state, d.amount_nanos, a.credits - a.debits FROM disputes d"
        " LEFT JOIN accounts a ON a.name = 'frozen:' || d.id AND a.unit = ?",
        (currency,),
    )
    for dispute_id, state, amount, balance in rows:
        if balance != (amount if state == "open" else 0):
            yield "frozen_not_dispute", f"{dispute_id} is {state}, {balance} of {amount} frozen"
    rows = connection.execute(
        "SELECT c.number, c.amount_nanos + c.tax_nanos, (SELECT coalesce(sum(amount), 0) FROM transfers"
        " WHERE id IN ('credit-note/' || c.number || '/amount', 'credit-note/' || c.number || '/tax'))"
        " FROM credit_notes c"
    )
    for number, amount, paid in rows:
        if amount != int(paid):
            yield "credit_note_not_transfers", f"{number}: {amount} credited, {paid} transferred"


def _bounds(document: dict[str, str]) -> tuple[int, int]:
    return parse_rfc3339(document["from"]), parse_rfc3339(document["to"])
