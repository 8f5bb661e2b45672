"""The body of a receipt, as settlement writes it: its digest is the usage leaf (docs/formats/receipt.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from metering.postings import Transfer
from metering.pricebook import PriceBook, Rating
from metering.terms import Terms


def receipt_body(
    record: bytes,
    terms: Terms,
    shares: Mapping[str, int],
    book: PriceBook,
    rating: Rating,
    transfers: Sequence[Transfer],
    window: int,
    time: str,
) -> bytes:
    """Its canonical bytes."""
    rest: dict[str, Any] = {
        "rating": {
            "currency": book.currency,
            "lines": [
                {
                    "amount_nanos": line.amount_nanos,
                    "kind": line.kind,
                    "quantity": line.quantity,
                    "unit_nanos": line.unit_nanos,
                }
                for line in rating.lines
            ],
            "total_nanos": rating.total_nanos,
        },
        "settlement": {
            "time": time,
            "transfers": [
                {"amount": t.amount, "code": t.code, "credit": t.credit, "debit": t.debit, "id": t.id, "unit": t.unit}
                for t in transfers
            ],
            "window": window,
        },
        "shares": {"fidelity_ppm": terms.fidelity_ppm, "method": terms.method, "provisional_ppm": shares},
    }
    if rating.volumes is not None:
        rest["rating"]["volumes"] = rating.volumes
    # Canonical without a second look: whole numbers within 64 bits, and names that are ASCII. The record is canonical,
    # and "event" sorts first.
    return b'{"event":' + record + b"," + orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)[1:]
