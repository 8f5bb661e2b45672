"""What settlement should come to, said again in the plainest way: fractions and lists, nothing of metering's."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from fractions import Fraction
from math import floor

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def lines_of(event: dict, book: dict, volumes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """(kind, quantity, unit nanos) of one event by a price book (both parsed JSON); tiers by the tenant's volumes."""
    data = event["data"]
    prices = book["base"] if data["adapter"] is None else book["adapters"].get(data["adapter"], book["default"])
    quantities = {
        "prompt": data["prompt_tokens"] - data["cached_tokens"],
        "cached": data["cached_tokens"],
        "completion": data["completion_tokens"],
    }
    lines = []
    for kind, quantity in quantities.items():
        reached = [
            tier for tier in prices.get("tiers", {}).get(kind, ()) if tier["from_tokens"] <= volumes.get(kind, 0)
        ]
        unit = reached[-1]["unit_nanos"] if reached else prices[f"{kind}_nanos"]
        lines.append((kind, quantity, unit if data["purpose"] == "serve" else 0))
    return lines


def month_before(month: str) -> str:
    """2026-01 -> 2025-12."""
    year, number = (int(part) for part in month.split("-"))
    return f"{year - (number == 1)}-{12 if number == 1 else number - 1:02d}"


def tax_of(net: int, rate_ppm: int) -> int:
    """To the nearest nano, halves up."""
    return floor(Fraction(net * rate_ppm, 10**6) + Fraction(1, 2))


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


def is_signed(vkey: str, text: str, signature: bytes) -> bool:
    """Whether the key `name+id+base64(1 || key)` made this Ed25519 signature."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(vkey.split("+", 2)[2])[1:])
    try:
        key.verify(signature, text.encode())
    except InvalidSignature:
        return False
    return True


def head_of(note: str, vkey: str) -> tuple[int, bytes] | None:
    """Size and root of a checkpoint that this very key signed, and no other; None for any other note."""
    text, _, block = note.rpartition("\n\n")
    name, identifier, _ = vkey.split("+", 2)
    marked, signature = block.rstrip("\n").rpartition(" ")[::2]
    raw = base64.b64decode(signature)
    if marked != f"— {name}" or raw[:4].hex() != identifier or not is_signed(vkey, text + "\n", raw[4:]):
        return None
    _, size, root = text.split("\n")
    return int(size), base64.b64decode(root)
