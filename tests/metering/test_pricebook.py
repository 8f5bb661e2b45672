"""Rating: integers, exact, and never above what was held."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.canonical import canonical_bytes, digest
from metering.errors import PriceBookInvalid, RatingError
from metering.pricebook import PriceBook, Prices, decode_price_book, rate, rate_tokens, worst_case_nanos

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "price-book.json").read_text())
ADAPTER = digest(b"adapter")
PRICES = st.builds(Prices, *[st.integers(0, 10**9)] * 3)
BOOKS = st.builds(
    PriceBook, st.just("USD"), st.integers(1, 9), PRICES, PRICES, st.dictionaries(st.just(ADAPTER), PRICES, max_size=1)
)
COUNTS = st.integers(0, 2**31 - 1)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["fact"])
def test_vectors(vector):
    """Each vector is a good price book of the stated digest."""
    book = decode_price_book(vector["bytes"].encode())
    assert (book.encode().decode(), book.digest) == (vector["bytes"], vector["digest"])


@given(BOOKS)
def test_books_round_trip(book):
    """A price book is what its bytes say."""
    assert decode_price_book(book.encode()) == book


@given(BOOKS, st.sampled_from([None, ADAPTER, digest(b"other")]), COUNTS, COUNTS, COUNTS)
def test_the_worst_case_covers_every_outcome(book, adapter, prompt_tokens, cached, completion_tokens):
    """No split of the prompt into cached and computed costs more than the hold, and ratings fit 64 bits."""
    cached_tokens = min(cached, prompt_tokens)
    rating = rate_tokens(book, adapter, prompt_tokens, cached_tokens, completion_tokens)
    assert rating.total_nanos == sum(line.quantity * line.unit_nanos for line in rating.lines)
    assert rating.total_nanos <= worst_case_nanos(book, adapter, prompt_tokens, completion_tokens) < 2**63


def test_prices_are_chosen_by_digest(market):
    """The base model, a listed adapter and any other adapter have prices of their own; a canary is free."""
    book = PriceBook("USD", 1, Prices(1, 1, 1), Prices(2, 2, 2), {ADAPTER: Prices(3, 3, 3)})
    event = market.event(price_book=book.digest)
    assert rate(event, book).total_nanos == 54
    assert rate(dataclasses.replace(event, adapter=digest(b"other")), book).total_nanos == 36
    assert rate(market.event(adapter=None, price_book=book.digest), book).total_nanos == 18
    assert rate(dataclasses.replace(event, purpose="canary"), book).total_nanos == 0


def test_another_book_is_refused(market):
    """An event is rated with the prices it was promised, or not at all."""
    with pytest.raises(RatingError):
        rate(market.event(), PriceBook("USD", 7, Prices(1, 1, 1), Prices(1, 1, 1), {}))


GOOD = json.loads(PriceBook("USD", 1, Prices(1, 1, 1), Prices(2, 2, 2), {ADAPTER: Prices(3, 3, 3)}).encode())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("type", "pricebook"), ("version", 0), ("version", "1"), ("version", True), ("currency", "usd"),
        ("currency", "EURO"), ("base", {}), ("base", {"prompt_nanos": 1, "cached_nanos": 1, "completion_nanos": -1}),
        ("base", {"prompt_nanos": 1, "cached_nanos": 1, "completion_nanos": "1"}), ("default", None),
        ("adapters", {"facts/oracle": GOOD["base"]}), ("adapters", []), ("extra", 1),
    ],
)  # fmt: skip
def test_bad_books_are_refused(member, value):
    """Each broken member of a price book is PriceBookInvalid."""
    with pytest.raises(PriceBookInvalid):
        decode_price_book(canonical_bytes(GOOD | {member: value}))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"a": 1}', b"\xff"])
def test_other_bytes_are_refused(data):
    """What is no price book at all is PriceBookInvalid too."""
    with pytest.raises(PriceBookInvalid):
        decode_price_book(data)
