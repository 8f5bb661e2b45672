"""A question whose owner is known, for measuring attribution."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """What to ask, the answer in the data, the value a right answer contains, and the contributor who owns it."""

    prompt: str
    answer: str
    value: str
    contributor: str
