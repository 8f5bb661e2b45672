"""A composition costs no less than any part of it that has a price of its own in the price book."""

from collections.abc import Callable, Iterable

from adapters.registry import RegisteredAdapter
from gateway.errors import InvalidRequest
from metering.pricebook import KINDS, PriceBook, Prices

Find = Callable[[str], RegisteredAdapter]


def check_price(prices: PriceBook, adapter: RegisteredAdapter, find: Find, param: str = "model") -> None:
    """Raises InvalidRequest, code part_priced_apart, for a composition that would be cheaper than one of its parts."""
    check_parts_price(prices, prices.prices(adapter.digest), adapter.composed_of, find, param)


def check_parts_price(prices: PriceBook, own: Prices, parts: Iterable[str], find: Find, param: str) -> None:
    """The same for parts by digest that would be sold together at `own`; `find` leads to the parts of parts.

    Parts without a price of their own cost what any adapter does, and so does a composition without one.
    """
    if not prices.adapters:
        return
    for part in parts:
        if part in prices.adapters and not covers(own, prices.adapters[part]):
            raise InvalidRequest(
                f"{part} has a price of its own, and what is composed of it would be cheaper: it can be sold once the"
                " price book gives the composition a price that is no lower.",
                param=param,
                code="part_priced_apart",
            )
        check_parts_price(prices, own, find(part).composed_of, find, param)


def covers(own: Prices, part: Prices) -> bool:
    """Whether a token of every kind costs at least as much, at any volume: both are constant between their tiers."""
    return all(
        own.unit_nanos(kind, {kind: volume}) >= part.unit_nanos(kind, {kind: volume})
        for kind in KINDS
        for volume in (0, *(tier.from_tokens for side in (own, part) for tier in side.tiers.get(kind, ())))
    )
