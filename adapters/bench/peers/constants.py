"""Rows that ask no model: chance, constants, the answer itself, and words in common."""

from __future__ import annotations

from pathlib import Path

import torch

from adapters.bench.peers.reader import World
from adapters.bench.peers.result import Result, Stopwatch
from adapters.training import baselines


def chance(world: World, work: Path) -> Result:
    """Independent normal numbers, seed 0."""
    draw = torch.Generator().manual_seed(0)
    return _free(torch.randn(len(world.queries), len(world.contributors), generator=draw, dtype=torch.float64))


def uniform(world: World, work: Path) -> Result:
    """The same for everyone."""
    return _free(baselines.uniform(len(world.queries), len(world.contributors)))


def data_size(world: World, work: Path) -> Result:
    """Supervised training tokens of each contributor."""
    tokens = [0] * len(world.contributors)
    for line in world.train:
        tokens[line.owner] += sum(line.supervised)
    return _free(baselines.data_size(len(world.queries), tokens).contiguous())


def oracle(world: World, work: Path) -> Result:
    """1 for whom the query is from: knows the owner and nothing else."""
    return _free(baselines.oracle([query.owner for query in world.queries], len(world.contributors)))


def bm25(world: World, work: Path) -> Result:
    """Okapi BM25 of the query's text (question and answer); a contributor scores as its best example."""
    clock = Stopwatch()
    texts, owners = [line.text for line in world.train], [line.owner for line in world.train]
    scores = baselines.bm25([query.text for query in world.queries], texts, owners, len(world.contributors))
    stored = sum(len(text.encode()) for text in texts)
    return Result(scores, "own", "-", "none", 0.0, clock.lap(), stored, True, "best example, not the sum")


def _free(scores: torch.Tensor) -> Result:
    return Result(scores, "own", "-", "none", 0.0, 0.0, 0, True)
