"""Terms and price books as settlement reads them: decoded once, since a digest's document never changes."""

from __future__ import annotations

from metering.errors import RatingError
from metering.event import UsageEvent
from metering.pricebook import PriceBook, decode_price_book
from metering.shares import shares_ppm
from metering.store import Connection
from metering.terms import Terms, decode_terms


def provisional_shares(event: UsageEvent, terms: Terms) -> dict[str, int]:
    """What the receipt says of one event's shares, in parts per million; {} for what earns nobody anything."""
    return shares_ppm(event.scores, terms.declared, terms.fidelity_ppm) if event.purpose == "serve" else {}


class Catalog:
    def __init__(self) -> None:
        self._terms: dict[str, Terms] = {}
        self._books: dict[str, PriceBook] = {}

    def terms(self, connection: Connection, digest: str) -> Terms:
        """RatingError `terms_unknown` when the ledger has no such terms."""
        if digest not in self._terms:
            self._terms[digest] = decode_terms(_document(connection, digest, "terms"))
        return self._terms[digest]

    def price_book(self, connection: Connection, digest: str) -> PriceBook:
        """RatingError `price_book_unknown` when the ledger has no such price book."""
        if digest not in self._books:
            self._books[digest] = decode_price_book(_document(connection, digest, "price_book"))
        return self._books[digest]

    def known_shares(self, event: UsageEvent) -> dict[str, int] | None:
        """`provisional_shares` where the event's terms were read before and fit its scores. Asks no database."""
        terms = self._terms.get(event.terms)
        if terms is None or not event.scores.keys() <= terms.declared.keys():
            return None
        return provisional_shares(event, terms)

    def agree(self, connection: Connection, event: UsageEvent, currency: str) -> tuple[Terms, PriceBook]:
        """The event's terms and price book; RatingError naming what does not fit the event."""
        terms = self.terms(connection, event.terms)
        book = self.price_book(connection, event.price_book)
        if (terms.base, terms.adapter, terms.head) != (event.base, event.adapter, event.head):
            raise RatingError("terms_mismatch: the terms are of another base, adapter or head")
        if not event.scores.keys() <= terms.declared.keys():
            raise RatingError(f"contributor_unknown: {sorted(event.scores.keys() - terms.declared.keys())}")
        if book.currency != currency:
            raise RatingError(f"currency_mismatch: prices in {book.currency}, ledger in {currency}")
        return terms, book


def _document(connection: Connection, digest: str, kind: str) -> bytes:
    rows = connection.execute("SELECT body FROM documents WHERE digest = ? AND kind = ?", (digest, kind))
    if not rows:
        raise RatingError(f"{kind}_unknown: {digest}")
    return bytes(rows[0][0])
