"""Terms and price books by digest, from the ledger, kept in memory: documents never change."""

from functools import lru_cache

from metering.ledger import Ledger
from metering.pricebook import PriceBook, decode_price_book
from metering.terms import Terms, decode_terms


class Documents:
    """What events name. A digest that the ledger lacks is our own bug: documents are put before they are named."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.terms = lru_cache(maxsize=1024)(self._terms)
        self.price_book = lru_cache(maxsize=64)(self._price_book)

    def _terms(self, digest: str) -> Terms:
        return decode_terms(self._content(digest))

    def _price_book(self, digest: str) -> PriceBook:
        return decode_price_book(self._content(digest))

    def _content(self, digest: str) -> bytes:
        content = self._ledger.document(digest)
        assert content is not None, f"{digest} was named before it was put"
        return content
