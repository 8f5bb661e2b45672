"""Terms and price books by digest, and volumes of months that are over: from the ledger, kept, for none changes."""

from collections.abc import Mapping
from functools import lru_cache

from metering.event import UsageEvent
from metering.ledger import Ledger
from metering.period import current_month, parse_period
from metering.pricebook import PriceBook, decode_price_book
from metering.terms import Terms, decode_terms
from metering.volume import read_volumes

SETTLED_US = 60_000_000  # a minute into a month, the settlement of the one before has ended


class Documents:
    """What events name. A digest that the ledger lacks is our own bug: documents are put before they are named."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.terms = lru_cache(maxsize=1024)(self._terms)
        self.price_book = lru_cache(maxsize=64)(self._price_book)
        self._kept_volumes = lru_cache(maxsize=4096)(self._volumes)

    def volumes(self, event: UsageEvent) -> Mapping[str, int]:
        """What chooses the event's tiers, as settlement will (metering.volume)."""
        month = current_month(event.time_unix_us)
        over = event.time_unix_us >= parse_period(month).start_us + SETTLED_US
        return (self._kept_volumes if over else self._volumes)(event.tenant, month)

    def _volumes(self, tenant: str, month: str) -> Mapping[str, int]:
        with self._ledger.store.read() as connection:
            return read_volumes(connection, tenant, parse_period(month).start_us)

    def _terms(self, digest: str) -> Terms:
        return decode_terms(self._content(digest))

    def _price_book(self, digest: str) -> PriceBook:
        return decode_price_book(self._content(digest))

    def _content(self, digest: str) -> bytes:
        content = self._ledger.document(digest)
        assert content is not None, f"{digest} was named before it was put"
        return content
