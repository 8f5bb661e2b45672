"""What invoices, credit notes and disputes have in common: numbers without gaps, stored documents, recorded states."""

from __future__ import annotations

from typing import Any

from metering.canonical import canonical_bytes, digest, parse_canonical
from metering.event import rfc3339
from metering.store import Connection

INVOICE, CREDIT_NOTE = "INV", "CN"  # series: each issuer counts each of them from 1
ISSUER = "operator"  # the account that issues, where there is only one


def next_number(connection: Connection, issuer: str, series: str) -> str:
    """The next number of a series, `INV-000001` first. It is taken for good only when the transaction commits."""
    rows = connection.execute(
        "INSERT INTO billing_sequences (issuer, series, last) VALUES (?, ?, 1)"
        " ON CONFLICT (issuer, series) DO UPDATE SET last = billing_sequences.last + 1 RETURNING last",
        (issuer, series),
    )
    return f"{series}-{rows[0][0]:06d}"


def store_document(connection: Connection, kind: str, document: dict[str, Any]) -> str:
    """Keep a document's canonical bytes for good and submit its digest to the log; the digest."""
    body = canonical_bytes(document)
    name = digest(body)
    connection.execute("INSERT INTO documents (digest, kind, body) VALUES (?, ?, ?)", (name, kind, body))
    connection.execute("INSERT INTO log_inbox (kind, digest) VALUES (?, ?)", (kind, name))
    return name


def load_document(connection: Connection, name: str) -> dict[str, Any]:
    """A stored document; it must be there, since rows name only what was stored with them."""
    rows = connection.execute("SELECT body FROM documents WHERE digest = ?", (name,))
    return parse_canonical(bytes(rows[0][0]))


def record_state(connection: Connection, subject: str, state: str, time_us: int, reason: str = "") -> None:
    """Append to the history of an invoice, credit note or dispute."""
    connection.execute(
        "INSERT INTO billing_states (subject, state, time_us, reason) VALUES (?, ?, ?, ?)",
        (subject, state, time_us, reason),
    )


def read_states(connection: Connection, subject: str) -> list[dict[str, str]]:
    """The history, oldest first."""
    rows = connection.execute(
        "SELECT state, time_us, reason FROM billing_states WHERE subject = ? ORDER BY seq", (subject,)
    )
    return [{"state": state, "time": rfc3339(time_us), "reason": reason} for state, time_us, reason in rows]
