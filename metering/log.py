"""The transparency log as stored in the ledger's database (docs/formats/checkpoint.md)."""

from __future__ import annotations

from metering.ledger import Ledger


def append_entry(ledger: Ledger, kind: str, body: bytes) -> str:
    """Submit a public entry (Ledger.put_document); the settler sequences it. Returns its digest at once."""
    return ledger.put_document(kind, body)


def wait_included(ledger: Ledger, digest: str, timeout_seconds: float = 10.0) -> int:
    """Leaf index of the entry once a signed checkpoint covers it; NotIncluded after the timeout."""
    raise NotImplementedError


def latest_checkpoint(ledger: Ledger) -> str:
    """Text of the newest signed checkpoint (C2SP tlog-checkpoint); NotIncluded while there is none."""
    raise NotImplementedError


def inclusion_proof_text(ledger: Ledger, digest: str) -> str:
    """C2SP tlog-proof of the entry under the newest checkpoint; NotIncluded while there is none."""
    raise NotImplementedError


def consistency_proof(ledger: Ledger, old_size: int, new_size: int) -> list[bytes]:
    """RFC 6962 section 2.1.2 proof that the tree of old_size is a prefix of the tree of new_size."""
    raise NotImplementedError
