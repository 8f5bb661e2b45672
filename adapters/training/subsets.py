"""Which subsets of the contributors a bank retrains on."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """One retraining: on the examples of the contributors in `members` (indices, sorted), from a seed."""

    kind: str
    members: tuple[int, ...]
    seed: int

    @property
    def name(self) -> str:
        """Unique in a bank."""
        return f"{self.kind}-{'.'.join(map(str, self.members))}-seed{self.seed}"


def parse_run(name: str) -> Run:
    """The run of that name; ValueError for what is none."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} names no run")
    kind, members, seed = found.groups()
    return Run(kind, tuple(map(int, members.split("."))) if members else (), int(seed))


NAME = re.compile(r"(half|full|left-out|none)-([0-9.]*)-seed([0-9]+)")
HALF, FULL, LEFT_OUT, NONE = KINDS = ("half", "full", "left-out", "none")


def half_subsets(contributors: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """`count` distinct subsets of half of the contributors, each beside its complement: every contributor is in half.

    With an odd number one of each pair has one more. Fewer when there are no more.
    """
    draw = random.Random(f"subsets/{seed}")
    everyone = range(contributors)
    found: dict[tuple[int, ...], None] = {}
    for _ in range(100 * count):
        if len(found) >= count:
            break
        half = tuple(sorted(draw.sample(everyone, contributors // 2)))
        for subset in (half, tuple(i for i in everyone if i not in half)):
            found.setdefault(subset)
    return list(found)[:count]


def plan(contributors: int, subsets: int, seeds: Sequence[int], *, leave_one_out: bool, design_seed: int) -> list[Run]:
    """All runs of a bank: half subsets seed by seed, the whole Datanet, each contributor left out, and nobody.

    The run of nobody is the base model.
    """
    halves = half_subsets(contributors, subsets, design_seed)
    runs = [Run(HALF, members, seed) for seed in seeds for members in halves]
    everyone = tuple(range(contributors))
    for seed in seeds:
        runs.append(Run(FULL, everyone, seed))
        if leave_one_out:
            runs += [Run(LEFT_OUT, tuple(i for i in everyone if i != left), seed) for left in everyone]
    return [*runs, Run(NONE, (), seeds[0])]


def indicator(subsets: Sequence[tuple[int, ...]], contributors: int) -> Tensor:
    """[S, C] fp64, 1 where the contributor is in the subset."""
    table = torch.zeros(len(subsets), contributors, dtype=torch.float64)
    for row, members in enumerate(subsets):
        table[row, list(members)] = 1
    return table
