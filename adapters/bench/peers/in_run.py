"""First-order In-Run Data Shapley (Wang et al. 2024, Data Shapley in One Training Run): own code, no library has it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from adapters.bench.peers.gradients import per_example
from adapters.bench.peers.reader import World
from adapters.bench.peers.result import Result, Stopwatch


def in_run(world: World, work: Path) -> Result:
    """score_c = sum over segments of <query's margin gradient at the segment's middle step, -sum of lr * c's gradient>.

    The paper takes the query's gradient at every step; here once a segment. Like the paper it follows plain gradient
    steps, also where the run took AdamW's.
    """
    clock = Stopwatch()
    _, queries = world.rows
    segments = world.segments()
    stored = sum(t.numel() * t.element_size() for _, b, runs in segments for t in (*b.values(), *runs.values()))
    read = clock.lap()
    total = torch.zeros(len(world.queries), len(world.contributors), dtype=torch.float64)
    for _, weights, in_run_sums in segments:
        load_b(world, weights)
        gradient = per_example(world.upper, queries, margin=True)
        sums = torch.cat([in_run_sums[f"{name}.weight"].flatten(1) for name in world.upper.lora_modules()], dim=1)
        total += (gradient @ sums.T).double()
    note = f"first order, query gradient at {len(segments)} points of the run"
    build = float(world.facts.get("replay_seconds", 0.0)) + read
    return Result(total, "own", "-", "margin", build, clock.lap(), stored, False, note)


def load_b(world: World, weights: dict[str, Tensor]) -> None:
    """Put B of a segment into the model."""
    parameters = dict(world.upper.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
