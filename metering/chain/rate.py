"""How many units of the token a ledger amount is: exact, fixed for the life of a deployment."""

from __future__ import annotations

from dataclasses import dataclass

from metering.chain.errors import RateInvalid

NANO_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Rate:
    """Each whole step of `nanos_per_step` nanos is `units_per_step` smallest units of the token.

    A token of 6 decimals worth one unit of the currency: 1000 nanos are 1 unit. Of 18 decimals: 1 nano is 10^9 units.
    What is left below a step stays in the ledger for a later epoch.
    """

    nanos_per_step: int
    units_per_step: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if type(value) is not int or not 0 < value <= 10**18:
                raise RateInvalid(f"{name}: {value!r} is not an integer in [1, 10^18]")

    def payable_nanos(self, amount_nanos: int) -> int:
        """The largest multiple of a step that is not above `amount_nanos` (>= 0)."""
        return amount_nanos - amount_nanos % self.nanos_per_step

    def units(self, amount_nanos: int) -> int:
        """RateInvalid unless `amount_nanos` is a whole number of steps."""
        steps, rest = divmod(amount_nanos, self.nanos_per_step)
        if rest:
            raise RateInvalid(f"{amount_nanos} nanos is not a multiple of {self.nanos_per_step}")
        return steps * self.units_per_step


def par_rate(token_decimals: int) -> Rate:
    """One whole token for one whole unit of the currency."""
    if not 0 <= token_decimals <= 27:
        raise RateInvalid(f"a token of {token_decimals} decimals")
    if token_decimals >= NANO_DIGITS:
        return Rate(1, 10 ** (token_decimals - NANO_DIGITS))
    return Rate(10 ** (NANO_DIGITS - token_decimals), 1)
