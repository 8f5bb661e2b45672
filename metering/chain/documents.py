"""Documents of the chain in the ledger: found by kind, and put inside a caller's transaction.

`put` is Ledger.put_document for callers that must write a document and transfers at once, or neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metering.canonical import canonical_bytes, digest, parse_canonical
from metering.store import Connection


def put(connection: Connection, kind: str, document: dict[str, Any]) -> str:
    """Store a document under its digest and submit it to the log; returns the digest."""
    body = canonical_bytes(document)
    name = digest(body)
    new = connection.execute(
        "INSERT INTO documents (digest, kind, body) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING RETURNING digest",
        (name, kind, body),
    )
    if new:
        connection.execute("INSERT INTO log_inbox (kind, digest) VALUES (?, ?)", (kind, name))
    return name


def all_of(connection: Connection, kind: str) -> Iterator[tuple[str, Any]]:
    """(digest, parsed document) of every document of a kind."""
    rows = connection.execute("SELECT digest, body FROM documents WHERE kind = ? ORDER BY digest", (kind,))
    for name, body in rows:
        yield name, parse_canonical(bytes(body))
