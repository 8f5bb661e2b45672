"""Price books and rating: tokens to nanos, integers only (docs/formats/price-book.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from metering.canonical import canonical_bytes, digest, is_digest, parse_canonical
from metering.errors import CanonicalError, PriceBookInvalid, RatingError
from metering.event import UsageEvent

KINDS = ("prompt", "cached", "completion")
UNIT_NANOS_MAX = 10**9  # one currency unit a token; keeps any rating below 2^63
FROM_TOKENS_MAX = 2**62
TIERS_MAX = 100
PRICES = tuple(f"{kind}_nanos" for kind in KINDS)


class Tier(NamedTuple):
    """What a token of one kind costs a tenant whose volume is at least `from_tokens`."""

    from_tokens: int
    unit_nanos: int


@dataclass(frozen=True, slots=True)
class Prices:
    """Nanos per token of each kind; `tiers`: by kind, other prices for tenants of larger volume, smallest first.

    A volume is the tokens of that kind that were settled for the tenant in the calendar month before the request's (see
    metering.volume). Construction raises PriceBookInvalid naming the field.
    """

    prompt_nanos: int
    cached_nanos: int
    completion_nanos: int
    tiers: Mapping[str, tuple[Tier, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in PRICES:
            _check_integer(name, getattr(self, name), 0, UNIT_NANOS_MAX)
        for kind, tiers in self.tiers.items():
            if kind not in KINDS:
                raise PriceBookInvalid(f"tiers: {kind!r} is not one of {', '.join(KINDS)}")
            if not 1 <= len(tiers) <= TIERS_MAX:
                raise PriceBookInvalid(f"tiers of {kind}: not 1 to {TIERS_MAX}")
            last = 0
            for tier in tiers:
                _check_integer(f"tiers of {kind}: from_tokens", tier.from_tokens, last + 1, FROM_TOKENS_MAX)
                _check_integer(f"tiers of {kind}: unit_nanos", tier.unit_nanos, 0, UNIT_NANOS_MAX)
                last = tier.from_tokens

    def unit_nanos(self, kind: str, volumes: Mapping[str, int]) -> int:
        """The price of a token of this kind at these volumes: of the last tier that they reach."""
        price = getattr(self, f"{kind}_nanos")
        for tier in self.tiers.get(kind, ()):
            if volumes.get(kind, 0) >= tier.from_tokens:
                price = tier.unit_nanos
        return price

    def highest(self, kind: str) -> int:
        """The price of the dearest tier."""
        return max(getattr(self, f"{kind}_nanos"), *(tier.unit_nanos for tier in self.tiers.get(kind, ())), 0)


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


class Rating(NamedTuple):
    """`volumes`: those that chose the tiers, where the prices have tiers."""

    lines: tuple[RatingLine, ...]
    volumes: Mapping[str, int] | None = None

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


def rate(event: UsageEvent, book: PriceBook, volumes: Mapping[str, int] | None = None) -> Rating:
    """One line per token kind, in the order of KINDS; only what serves costs. RatingError for another book's event."""
    if event.price_book != book.digest:
        raise RatingError(f"event {event.id} names another price book: {event.price_book}")
    return rate_event(event, book, volumes)


def rate_event(event: UsageEvent, book: PriceBook, volumes: Mapping[str, int] | None = None) -> Rating:
    """`rate` for who has looked the book up under the name that the event gives: no digest is computed."""
    return rate_tokens(
        book, event.adapter, event.prompt_tokens, event.cached_tokens, event.completion_tokens, event.purpose, volumes
    )


def rate_tokens(
    book: PriceBook,
    adapter: str | None,
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
    purpose: str = "serve",
    volumes: Mapping[str, int] | None = None,
) -> Rating:
    """The rating of these counts: `prompt` counts the computed ones, prompt_tokens - cached_tokens.

    `volumes` (none: all 0) choose among tiers; prices without tiers do not look at them.
    """
    prices = book.prices(adapter) if purpose == "serve" else FREE
    if prices.tiers:
        volumes = volumes or dict.fromkeys(KINDS, 0)
        quantities = (prompt_tokens - cached_tokens, cached_tokens, completion_tokens)
        lines = [_line(kind, n, prices.unit_nanos(kind, volumes)) for kind, n in zip(KINDS, quantities, strict=True)]
        return Rating(tuple(lines), dict(volumes))
    return Rating(
        (
            _line("prompt", prompt_tokens - cached_tokens, prices.prompt_nanos),
            _line("cached", cached_tokens, prices.cached_nanos),
            _line("completion", completion_tokens, prices.completion_nanos),
        )
    )


def worst_case_nanos(book: PriceBook, adapter: str | None, prompt_tokens: int, max_tokens: int) -> int:
    """The most that a request can cost, in whatever tier: the amount to hold.

    `max_tokens` counts all choices (n * max_tokens).
    """
    prices = book.prices(adapter)
    if prices.tiers:
        prices = Prices(prices.highest("prompt"), prices.highest("cached"), prices.highest("completion"))
    return prompt_tokens * max(prices.prompt_nanos, prices.cached_nanos) + max_tokens * prices.completion_nanos


def _line(kind: str, quantity: int, unit_nanos: int) -> RatingLine:
    return RatingLine(kind, quantity, unit_nanos, quantity * unit_nanos)


def _prices(value: Any) -> Prices:
    if not isinstance(value, dict) or value.keys() - {"tiers"} != set(PRICES):
        raise PriceBookInvalid(f"prices: members must be exactly {', '.join(PRICES)}, and tiers where there are any")
    if "tiers" not in value:
        return Prices(**value)
    tiers = value["tiers"]
    if not isinstance(tiers, dict) or not tiers or not all(isinstance(rows, list) for rows in tiers.values()):
        raise PriceBookInvalid("tiers: not an object of arrays with at least one member")
    for row in (row for rows in tiers.values() for row in rows):
        if not isinstance(row, dict) or row.keys() != set(Tier._fields):
            raise PriceBookInvalid(f"tiers: members must be exactly {', '.join(Tier._fields)}")
    return Prices(**{**value, "tiers": {kind: tuple(Tier(**row) for row in rows) for kind, rows in tiers.items()}})


def _prices_json(prices: Prices) -> dict[str, Any]:
    members: dict[str, Any] = {name: getattr(prices, name) for name in PRICES}
    if prices.tiers:
        members["tiers"] = {kind: [tier._asdict() for tier in tiers] for kind, tiers in prices.tiers.items()}
    return members


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise PriceBookInvalid(f"{name}: {value!r} is not an integer in [{low}, {high}]")


FREE = Prices(0, 0, 0)
