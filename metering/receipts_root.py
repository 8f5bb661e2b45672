"""The receipts of a tenant in a period, as one hash: what an invoice commits to."""

from __future__ import annotations

import hashlib
from typing import Any

from metering import merkle
from metering.note import encode_base64
from metering.period import Period
from metering.store import Connection


def leaf_range(connection: Connection, start_us: int, end_us: int) -> tuple[int, int]:
    """Indexes [low, high) of the log's leaves that were sequenced in the time given.

    Each batch signs its checkpoint in the transaction, and at the time, of its transfers.
    """
    sizes = [
        connection.execute("SELECT coalesce(max(size), 0) FROM log_checkpoints WHERE time_us < ?", (time_us,))[0][0]
        for time_us in (start_us, end_us)
    ]
    return sizes[0], sizes[1]


def receipts_root(connection: Connection, tenant: str, span: Period) -> dict[str, Any]:
    """{"count", "first_leaf", "last_leaf", "root"}: RFC 6962 root over the usage leaves of the tenant, in log order.

    The leaves hashed are those of the transparency log itself; `root` is base64 as in checkpoints, and the leaf indexes
    are null when there are no receipts.
    """
    low, high = leaf_range(connection, span.start_us, span.end_us)
    rows = connection.execute(
        "SELECT u.leaf_index, l.digest FROM usage u JOIN log_leaves l ON l.leaf_index = u.leaf_index"
        " WHERE u.tenant = ? AND u.leaf_index >= ? AND u.leaf_index < ? ORDER BY u.leaf_index",
        (tenant, low, high),
    )
    return {
        "count": len(rows),
        "first_leaf": rows[0][0] if rows else None,
        "last_leaf": rows[-1][0] if rows else None,
        "root": encode_base64(usage_root([row[1] for row in rows])),
    }


def usage_root(digests: list[str]) -> bytes:
    """RFC 6962 root over usage leaves with these body digests. A million take 2 s."""
    # merkle.leaf_hash(leaf_bytes("usage", digest)), spelled out: no JSON is built for a million receipts
    leaves = [hashlib.sha256(b'\x00{"digest":"%b","type":"usage"}' % digest.encode()).digest() for digest in digests]
    return merkle.tree_root(merkle.MemoryNodes(leaves), len(leaves))
