"""Terms and price books as settlement reads them: decoded once, since a digest's document never changes."""

from __future__ import annotations

from itertools import islice

from metering.errors import RatingError
from metering.event import UsageEvent
from metering.pricebook import PriceBook, Rating, decode_price_book, rate_event
from metering.receipt_body import Frame, receipt_frame
from metering.shares import shares_ppm
from metering.store import Connection
from metering.terms import Terms, decode_terms

Documents = tuple[dict[str, Terms], dict[str, PriceBook]]


def frame_event(event: UsageEvent, terms: Terms, book: PriceBook, rating: Rating) -> Frame:
    """Of the event's receipt, with its provisional shares: those of one event, {} for what earns nobody anything."""
    serves = event.purpose == "serve"
    shares = shares_ppm(event.scores, terms.declared, terms.fidelity_ppm) if serves else {}
    return receipt_frame(terms, shares, book, rating)


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

    def beyond(self, terms: int, books: int) -> Documents:
        """What was read after the first so many of each: for the catalog of another process to `learn`."""
        return dict(islice(self._terms.items(), terms, None)), dict(islice(self._books.items(), books, None))

    def learn(self, documents: Documents) -> None:
        self._terms.update(documents[0])
        self._books.update(documents[1])

    def known_frame(self, event: UsageEvent) -> Frame | None:
        """`frame_event` where the event's documents were read before, fit it and have no tiers. Asks no database."""
        terms, book = self._terms.get(event.terms), self._books.get(event.price_book)
        if terms is None or book is None or book.prices(event.adapter).tiers:
            return None
        if not event.scores.keys() <= terms.declared.keys():
            return None
        return frame_event(event, terms, book, rate_event(event, book))

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
