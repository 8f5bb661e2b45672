"""A question whose owner is known, for measuring attribution."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """What to ask, the answer in the data, what a right answer contains (None: nothing is right), and its owner."""

    prompt: str
    answer: str
    value: str | None
    contributor: str
