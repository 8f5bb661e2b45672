"""The log's public entries, with their documents: who contributed, who trained, who computed, who tuned."""

from __future__ import annotations

from typing import Any

from metering.canonical import parse_canonical
from metering.ledger import Ledger

# What anyone may read. Of all others (usage, invoices, disputes, payout trees) the log tells the digest only.
PUBLIC_KINDS = (
    "adapter", "audit_alarm", "composition", "contribution", "datanet", "datanet_version", "fidelity", "head",
    "log_key", "policy", "price_book", "promotion", "registration", "revocation", "tag", "terms", "training",
    "training_record", "vote", "withdrawal",
)  # fmt: skip
LIMIT_MAX = 1000


def list_entries(ledger: Ledger, kind: str | None = None, after: int = -1, limit: int = 100) -> list[dict[str, Any]]:
    """Entries behind leaf `after` in the log's order, usage left out: index, type, digest, document (null if private).

    At most `limit` (1,000 at most), of one type or of all.
    """
    with ledger.store.read() as connection:
        rows = connection.execute(
            "SELECT l.leaf_index, l.kind, l.digest, d.body FROM log_leaves l"
            " LEFT JOIN documents d ON d.digest = l.digest"
            " WHERE l.kind <> 'usage' AND l.leaf_index > ?"
            + (" AND l.kind = ?" if kind else "")
            + " ORDER BY l.leaf_index LIMIT ?",
            (after, *([kind] if kind else []), max(1, min(limit, LIMIT_MAX))),
        )
    return [
        {
            "index": index,
            "type": name,
            "digest": digest,
            "document": parse_canonical(bytes(body)) if body is not None and name in PUBLIC_KINDS else None,
        }
        for index, name, digest, body in rows
    ]


def public_document(ledger: Ledger, digest: str) -> bytes | None:
    """The bytes of a document of a public type; None for any other digest."""
    with ledger.store.read() as connection:
        rows = connection.execute("SELECT kind, body FROM documents WHERE digest = ?", (digest,))
    return bytes(rows[0][1]) if rows and rows[0][0] in PUBLIC_KINDS else None
