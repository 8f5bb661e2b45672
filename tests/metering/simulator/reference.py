"""What settlement should come to, said again in the plainest way: fractions and lists, nothing of metering's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction


def amount_of(event: dict, book: dict) -> int:
    """Nanos of one event (parsed JSON) by a price book (parsed JSON)."""
    data = event["data"]
    if data["purpose"] != "serve":
        return 0
    prices = book["base"] if data["adapter"] is None else book["adapters"].get(data["adapter"], book["default"])
    computed = data["prompt_tokens"] - data["cached_tokens"]
    return (
        computed * prices["prompt_nanos"]
        + data["cached_tokens"] * prices["cached_nanos"]
        + data["completion_tokens"] * prices["completion_nanos"]
    )


def divide(total: int, parts: Mapping[str, Fraction]) -> dict[str, int]:
    """Largest remainder; ties to the first name."""
    whole = sum(parts.values())
    quotas = {name: total * part / whole for name, part in parts.items()}
    shares = {name: int(quota) for name, quota in quotas.items()}
    by_remainder = sorted(parts, key=lambda name: (shares[name] - quotas[name], name))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def weights(net: Mapping[str, int], declared: Mapping[str, int], fidelity_ppm: int) -> dict[str, Fraction]:
    """w_c = f max(S_c, 0) / sum max(S, 0) + (1 - f) d_c / sum d; d_c when no score is positive."""
    positive = sum(max(score, 0) for score in net.values())
    everyone = {name: Fraction(weight, sum(declared.values())) for name, weight in declared.items()}
    if not positive:
        return everyone
    f = Fraction(fidelity_ppm, 10**6)
    return {name: f * max(net.get(name, 0), 0) / positive + (1 - f) * part for name, part in everyone.items()}


def window_payouts(terms: dict, nanos: int, microtokens: int, net: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """(account, unit) to amount for one window and terms (parsed JSON); zero amounts left out."""
    part = {role: nanos * ppm // 10**6 for role, ppm in terms["split_ppm"].items()}
    paid = {
        (f"trainer:{terms['trainer']}", "USD"): part["trainer"],
        (f"host:{terms['host']}", "USD"): part["host"],
        (f"governance:{terms['datanet']}", "USD"): part["governance"],
        ("treasury", "USD"): part["treasury"],
        ("residue", "USD"): nanos - sum(part.values()),
    }
    if terms["declared"]:
        parts = weights(net, terms["declared"], terms["fidelity_ppm"])
        for unit, total in (("USD", part["contributors"]), ("microtoken", microtokens)):
            paid |= {(f"contributor:{name}", unit): amount for name, amount in divide(total, parts).items()}
    return {key: amount for key, amount in paid.items() if amount}


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, by its recursion."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return hashlib.sha256(b"\1" + tree_root(leaves[:middle]) + tree_root(leaves[middle:])).digest()
