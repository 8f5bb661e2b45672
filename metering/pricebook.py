"""Price books and rating: tokens to nanos, integers only (docs/formats/price-book.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from metering.canonical import canonical_bytes, digest, is_digest, parse_canonical
from metering.errors import CanonicalError, PriceBookInvalid, RatingError
from metering.event import UsageEvent

KINDS = ("prompt", "cached", "completion")
UNIT_NANOS_MAX = 10**9  # one currency unit a token; keeps any rating below 2^63


@dataclass(frozen=True, slots=True)
class Prices:
    """Nanos per token of each kind."""

    prompt_nanos: int
    cached_nanos: int
    completion_nanos: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= UNIT_NANOS_MAX:
                raise PriceBookInvalid(f"{name}: {value!r} is not an integer in [0, {UNIT_NANOS_MAX}]")


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One version of the prices: of the bare base model, of adapters by digest, and of any other adapter."""

    currency: str
    version: int
    base: Prices
    default: Prices
    adapters: Mapping[str, Prices]

    def prices(self, adapter: str | None) -> Prices:
        if adapter is None:
            return self.base
        return self.adapters.get(adapter, self.default)

    def encode(self) -> bytes:
        """Canonical document bytes; their digest is what events name."""
        return canonical_bytes(
            {
                "adapters": {name: _prices_json(prices) for name, prices in self.adapters.items()},
                "base": _prices_json(self.base),
                "currency": self.currency,
                "default": _prices_json(self.default),
                "type": "price_book",
                "version": self.version,
            }
        )

    @property
    def digest(self) -> str:
        return digest(self.encode())


class RatingLine(NamedTuple):
    """quantity tokens of `kind` at `unit_nanos` each: amount_nanos = quantity * unit_nanos."""

    kind: str
    quantity: int
    unit_nanos: int
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class Rating:
    lines: tuple[RatingLine, ...]

    @property
    def total_nanos(self) -> int:
        return sum(line.amount_nanos for line in self.lines)


def decode_price_book(data: bytes) -> PriceBook:
    """The price book of canonical document bytes; PriceBookInvalid otherwise."""
    try:
        document = parse_canonical(data)
    except CanonicalError as error:
        raise PriceBookInvalid(str(error)) from error
    if not isinstance(document, dict) or document.keys() != {
        "adapters",
        "base",
        "currency",
        "default",
        "type",
        "version",
    }:
        raise PriceBookInvalid("members: not exactly adapters, base, currency, default, type, version")
    if document["type"] != "price_book":
        raise PriceBookInvalid(f"type: {document['type']!r}")
    if type(document["version"]) is not int or document["version"] < 1:
        raise PriceBookInvalid("version: not a positive integer")
    currency = document["currency"]
    if not isinstance(currency, str) or len(currency) != 3 or not currency.isascii() or not currency.isupper():
        raise PriceBookInvalid("currency: not three capital letters")
    if not isinstance(document["adapters"], dict) or not all(map(is_digest, document["adapters"])):
        raise PriceBookInvalid("adapters: keys must be adapter digests")
    return PriceBook(
        currency=currency,
        version=document["version"],
        base=_prices(document["base"]),
        default=_prices(document["default"]),
        adapters={name: _prices(prices) for name, prices in document["adapters"].items()},
    )


def rate(event: UsageEvent, book: PriceBook) -> Rating:
    """One line per token kind, in the order of KINDS; only what serves costs. RatingError for another book's event."""
    if event.price_book != book.digest:
        raise RatingError(f"event {event.id} names another price book: {event.price_book}")
    return rate_tokens(
        book, event.adapter, event.prompt_tokens, event.cached_tokens, event.completion_tokens, event.purpose
    )


def rate_tokens(
    book: PriceBook,
    adapter: str | None,
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
    purpose: str = "serve",
) -> Rating:
    """The rating of these counts: `prompt` counts the computed ones, prompt_tokens - cached_tokens."""
    prices = book.prices(adapter) if purpose == "serve" else Prices(0, 0, 0)
    return Rating(
        (
            _line("prompt", prompt_tokens - cached_tokens, prices.prompt_nanos),
            _line("cached", cached_tokens, prices.cached_nanos),
            _line("completion", completion_tokens, prices.completion_nanos),
        )
    )


def worst_case_nanos(book: PriceBook, adapter: str | None, prompt_tokens: int, max_tokens: int) -> int:
    """The most that a request can cost: the amount to hold. `max_tokens` counts all choices (n * max_tokens)."""
    prices = book.prices(adapter)
    return prompt_tokens * max(prices.prompt_nanos, prices.cached_nanos) + max_tokens * prices.completion_nanos


def _line(kind: str, quantity: int, unit_nanos: int) -> RatingLine:
    return RatingLine(kind, quantity, unit_nanos, quantity * unit_nanos)


def _prices(value: Any) -> Prices:
    if not isinstance(value, dict) or value.keys() != set(Prices.__slots__):
        raise PriceBookInvalid(f"prices: members must be exactly {', '.join(Prices.__slots__)}")
    return Prices(**value)


def _prices_json(prices: Prices) -> dict[str, int]:
    return {name: getattr(prices, name) for name in Prices.__slots__}
