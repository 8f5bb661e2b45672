"""python -m adapters.bench.peers.run ROW WORLD OUT: score one row, in the process and environment it was given."""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import torch

from adapters.bench.peers.reader import World
from adapters.bench.peers.result import write_result
from adapters.bench.rows import ROWS


def score_row(name: str, world: World, out: Path) -> None:
    """Score `world` by a row and write `out`."""
    row = ROWS[name]
    function = getattr(import_module(f"adapters.bench.peers.{row.module}"), row.function)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        result = function(world, Path(work))
    expected = (len(world.queries), len(world.contributors))
    if tuple(result.scores.shape) != expected or not bool(torch.isfinite(result.scores).all()):
        raise RuntimeError(f"{name} gave scores of shape {tuple(result.scores.shape)}, not finite {expected}")
    write_result(out, result, world.query_tokens, world.facts["weights"])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]) if len(sys.argv) > 4 else 2)
    score_row(sys.argv[1], World(Path(sys.argv[2])), Path(sys.argv[3]))
