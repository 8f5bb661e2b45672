"""Receipts: a settled request, its leaf, and the proof that the log holds it (docs/formats/receipt.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metering.ledger import Ledger


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a good receipt says: its parsed body, leaf index and the size of the signed tree."""

    body: dict[str, Any]
    leaf_index: int
    tree_size: int


def build_receipt(ledger: Ledger, request_id: str) -> bytes:
    """The receipt file of a settled request; UsageUnknown when it is not settled (yet)."""
    raise NotImplementedError


def verify_receipt(data: bytes, public_key: str) -> VerifiedReceipt:
    """Check a receipt offline against the log's public key (the text of log.pub); ReceiptInvalid names the bad step."""
    raise NotImplementedError
