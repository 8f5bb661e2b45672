"""Which of N adapters the next request asks for: uniform, zipf or identical (the axis of punica's benchmarks)."""

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

KINDS = ("uniform", "zipf", "identical")
ZIPF_EXPONENT = 1.0
T = TypeVar("T")


def weights(kind: str, count: int) -> list[float]:
    """Relative weights of ranks 0 to count - 1: 1 (uniform), 1 / (rank + 1) (zipf), rank 0 alone (identical)."""
    if kind == "uniform":
        return [1.0] * count
    if kind == "zipf":
        return [(rank + 1) ** -ZIPF_EXPONENT for rank in range(count)]
    if kind == "identical":
        return [float(rank == 0) for rank in range(count)]
    raise ValueError(f"popularity {kind!r} is not one of {', '.join(KINDS)}")


def pick(rng: random.Random, kind: str, items: Sequence[T]) -> T:
    """One item; the first is the most popular."""
    return picks(rng, kind, items, 1)[0]


def picks(rng: random.Random, kind: str, items: Sequence[T], count: int) -> list[T]:
    """`count` items, drawn independently."""
    return rng.choices(items, cum_weights=list(accumulate(weights(kind, len(items)))), k=count)
