"""Declared weights: how an adapter's earnings are split as far as they are not measured (ATTRIBUTION.md section 4)."""

from collections.abc import Mapping

from adapters.errors import InvalidDeclared, InvalidName
from adapters.names import check_name
from adapters.package import Package

MAX_WEIGHT = 2**53


def check_declared(declared: Mapping[str, int]) -> dict[str, int]:
    """A plain, sorted copy. Raises InvalidDeclared unless names map to integers 0 to 2^53 with a positive sum."""
    for name, weight in declared.items():
        try:
            check_name(name, "contributor")
        except InvalidName as error:
            raise InvalidDeclared(str(error)) from None
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= MAX_WEIGHT:
            raise InvalidDeclared(f"the declared weight of {name} must be an integer of 0 to 2^53")
    if not any(declared.values()):
        raise InvalidDeclared("declared weights need a positive sum")
    return {name: declared[name] for name in sorted(declared)}


def default_declared(package: Package, accepted_bytes: Mapping[str, int], publisher: str) -> dict[str, int]:
    """What holds when the publisher declares nothing.

    The training tokens of the training record; for a head without record, the bytes that each contributor has in its
    Datanet version; for a package without Datanet, everything to the publisher.
    """
    for weights in (package.tokens, accepted_bytes):
        if any(weights.values()):
            return check_declared(weights)
    return {publisher: 1}
