"""Terms of a composed adapter: the terms of its parts, each counting by its weight."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from adapters.registry import RegisteredAdapter
from metering.shares import PPM, largest_remainder
from metering.terms import HOLDERS, ROLES, Terms

SCALE = 10**12
"""Weights become integers of this many units to the whole: parts far below one nano of any payout vanish."""


def composed_terms(adapter: RegisteredAdapter, parts: Sequence[tuple[Terms, int]], host: str) -> Terms:
    """The terms of `adapter`, made of `parts` with weights (any unit; they are divided by their sum).

    With W_p the weight and s_p(role) the split of part p, a role's split is sum_p W_p s_p(role). Whoever holds a role
    in p gets W_p s_p(role) of it: each trainer, host, Datanet and declared contributor what it would get if W_p of the
    money were p's. Measured scores then divide the contributors' part as in any adapter.
    """
    total = sum(weight for _, weight in parts)
    split: dict[str, Fraction] = defaultdict(Fraction)
    held: dict[str, dict[str, Fraction]] = {role: defaultdict(Fraction) for role in HOLDERS}
    declared: dict[str, Fraction] = {name: Fraction(0) for terms, _ in parts for name in terms.declared}
    for terms, weight in parts:
        for role in ROLES:
            split[role] += Fraction(weight * terms.split_ppm[role], total)
        for role, shares in held.items():
            _add(shares, terms.holders_of(role), Fraction(weight * terms.split_ppm[role], total * PPM))
        _add(declared, terms.declared, Fraction(weight * terms.split_ppm["contributors"], total * PPM))
    holders = {role: _integers(weights) for role, weights in held.items()}
    several = {role: weights for role, weights in holders.items() if len(weights) > 1}
    only = {role: next(iter(weights)) for role, weights in holders.items() if len(weights) == 1}
    return Terms(
        adapter=adapter.digest,
        head=adapter.head,
        method=adapter.method,
        fidelity_ppm=adapter.fidelity_ppm,
        base=adapter.base,
        datanet=only.get("governance"),
        datanet_version=None,
        publisher=adapter.publisher,
        declared=_integers(declared) | {name: 0 for name, share in declared.items() if not share},
        split_ppm=largest_remainder(PPM, {role: int(split[role] * SCALE) for role in ROLES}),
        trainer=only.get("trainer"),
        host=only.get("host", host),
        holders=several,
    )


def _add(to: dict[str, Fraction], weights: Mapping[str, int], share: Fraction) -> None:
    whole = sum(weights.values())
    for name, weight in weights.items():
        to[name] = to.get(name, Fraction(0)) + share * Fraction(weight, whole)


def _integers(shares: Mapping[str, Fraction]) -> dict[str, int]:
    """Shares of at most 1 as integers of SCALE; what is nothing is left out."""
    return {name: round(share * SCALE) for name, share in sorted(shares.items()) if round(share * SCALE)}
