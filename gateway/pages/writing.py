"""How pages write amounts, rates, periods and dates."""

from collections.abc import Callable, Iterable

from metering.money import format_nanos, format_ppm

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def amount_writer(amounts: Iterable[int]) -> Callable[[int], str]:
    """Writes nanos with the decimals that the finest of `amounts` needs, at least 2."""
    decimals = max(len(format_nanos(nanos, 2).partition(".")[2]) for nanos in amounts)
    return lambda nanos: thousands(format_nanos(nanos, decimals))


def rate_text(rate_ppm: int) -> str:
    """255000 -> 25.5 %."""
    digits = format_ppm(rate_ppm).removesuffix(" %")
    return f"{digits.rstrip('0').rstrip('.')} %"


def thousands(text: str) -> str:
    """1234.50 -> 1,234.50."""
    whole, point, fraction = text.partition(".")
    return f"{int(whole):,}{point}{fraction}"


def period_text(name: str) -> str:
    """2026-11 -> November 2026."""
    year, month, *day = name.split("-")
    return " ".join([*day, MONTHS[int(month) - 1], year])


def date_text(text: str) -> str:
    """2026-12-01T... -> 1 December 2026."""
    year, month, day = text[:10].split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"
