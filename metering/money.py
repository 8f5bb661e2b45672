"""Amounts as people read them: exact decimals from integer nanos, never floats."""

from __future__ import annotations


def format_nanos(amount_nanos: int, decimals: int = 9) -> str:
    """1234567890 -> 1.234567890; with fewer `decimals`, only trailing zeros are ever cut off."""
    sign = "-" if amount_nanos < 0 else ""
    whole, fraction = divmod(abs(amount_nanos), 10**9)
    digits = f"{fraction:09d}"
    kept = max(decimals, len(digits.rstrip("0")))
    return f"{sign}{whole}" + (f".{digits[:kept]}" if kept else "")


def format_ppm(share_ppm: int) -> str:
    """125000 -> 12.5000 %."""
    return f"{share_ppm // 10_000}.{share_ppm % 10_000:04d} %"
