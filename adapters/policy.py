"""A Datanet's policy: how the price of a token is split among the roles."""

from collections.abc import Mapping

from adapters.errors import InvalidPolicy

ROLES = ("contributors", "trainer", "host", "governance", "treasury")
WHOLE_PPM = 1_000_000

DEFAULT_SPLIT_PPM: Mapping[str, int] = {
    "contributors": 600_000,
    "trainer": 150_000,
    "host": 150_000,
    "governance": 50_000,
    "treasury": 50_000,
}
"""Parts per million of the price; what a Datanet gets that names no policy of its own."""


def check_split(split_ppm: Mapping[str, int]) -> dict[str, int]:
    """A plain copy in the order of ROLES.

    Raises InvalidPolicy unless the keys are exactly ROLES and the values non-negative integers with sum 1,000,000.
    """
    if set(split_ppm) != set(ROLES):
        raise InvalidPolicy(f"a split names exactly {', '.join(ROLES)}")
    for role, share_ppm in split_ppm.items():
        if isinstance(share_ppm, bool) or not isinstance(share_ppm, int) or share_ppm < 0:
            raise InvalidPolicy(f"the share of {role} must be a non-negative integer of parts per million")
    total_ppm = sum(split_ppm.values())
    if total_ppm != WHOLE_PPM:
        raise InvalidPolicy(f"the shares add up to {total_ppm} ppm instead of {WHOLE_PPM}")
    return {role: split_ppm[role] for role in ROLES}
