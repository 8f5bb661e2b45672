"""Billing periods: a month `YYYY-MM` or a day `YYYY-MM-DD`, UTC, by the time of settlement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from metering.errors import PeriodInvalid

PERIOD = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?\Z")


@dataclass(frozen=True, slots=True)
class Period:
    """Days `first` to `last`, both included."""

    name: str
    first: date
    last: date

    @property
    def start_us(self) -> int:
        return _midnight_us(self.first)

    @property
    def end_us(self) -> int:
        """The first microsecond after it."""
        return _midnight_us(self.last + timedelta(days=1))

    def is_over(self, at_us: int) -> bool:
        return at_us >= self.end_us


def parse_period(name: str) -> Period:
    """PeriodInvalid unless `name` is a real month or day."""
    if not isinstance(name, str) or not PERIOD.match(name):
        raise PeriodInvalid(f"{name!r} is neither YYYY-MM nor YYYY-MM-DD")
    try:
        if len(name) == 10:
            day = date.fromisoformat(name)
            return Period(name, day, day)
        first = date.fromisoformat(f"{name}-01")
    except ValueError as error:
        raise PeriodInvalid(f"{name!r}: {error}") from error
    following = (first + timedelta(days=31)).replace(day=1)
    return Period(name, first, following - timedelta(days=1))


def current_month(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m")


def previous_month(month: str) -> str:
    """2026-01 -> 2025-12."""
    return (date.fromisoformat(f"{month}-01") - timedelta(days=1)).strftime("%Y-%m")


def _midnight_us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
