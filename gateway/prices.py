"""The price book in force: `$DATA/price_book.json`, written with defaults at first start, read at each start."""

import os
import secrets
from pathlib import Path

from gateway.errors import ConfigurationError
from metering.errors import PriceBookInvalid
from metering.pricebook import PriceBook, Prices, decode_price_book

# Nanos per token: a million prompt and completion tokens cost 0.05 and 0.20 on the base model, twice that on adapters.
BASE = Prices(prompt_nanos=50, cached_nanos=25, completion_nanos=200)
ADAPTERS = Prices(prompt_nanos=100, cached_nanos=50, completion_nanos=400)


def load_price_book(data: Path, currency: str) -> PriceBook:
    """The operator's price book. Raises ConfigurationError for a file that is none, or in another currency."""
    path = data / "price_book.json"
    if not path.exists():
        book = PriceBook(currency=currency, version=1, base=BASE, default=ADAPTERS, adapters={})
        staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        staged.write_bytes(book.encode())
        os.replace(staged, path)
    try:
        book = decode_price_book(path.read_bytes().strip())
    except PriceBookInvalid as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if book.currency != currency:
        raise ConfigurationError(f"{path} is in {book.currency}, the ledger in {currency}")
    return book
