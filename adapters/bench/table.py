"""Who finds the owner of a query, and what it costs: the peers' part of the benchmark's table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.bench.peers.reader import World
from adapters.bench.world import KINDS
from adapters.training.measures import mean_reciprocal_rank, recall_at_1

COSTS = ("library", "version", "build_seconds", "microseconds_per_scored_token", "bytes_stored", "forward_only")


def measured(world_dir: Path, rows: Mapping[str, tuple[Tensor | None, dict[str, Any]]]) -> dict[str, Any]:
    """Per row: its facts and, for each kind of query, recall at 1 and mean reciprocal rank of the query's owner."""
    world = World(world_dir)
    report: dict[str, Any] = {}
    for name, (scores, facts) in rows.items():
        report[name] = dict(facts)
        for kind in KINDS if scores is not None else ():
            at = [i for i, query in enumerate(world.queries) if query.kind == kind]
            owners = [world.queries[i].owner for i in at]
            chosen = scores[torch.tensor(at)]  # type: ignore[index]
            report[name][kind] = {
                "recall_at_1": recall_at_1(chosen, owners).record(),
                "mrr": mean_reciprocal_rank(chosen, owners).record(),
            }
    return report


def table(report: Mapping[str, Mapping[str, Any]]) -> str:
    """Fixed-width text; a row without scores says why."""
    head = f"{'row':<18}{'recall@1 / MRR held-out':<26}{'own answers':<18}{'library':<26}{'build s':>9}{'us/token':>11}"
    lines = [f"{head}{'bytes':>14}  forward only"]
    for name, row in report.items():
        if "reason" in row:
            lines.append(f"{name:<18}not run: {row['reason']}")
            continue
        held_out, own = (_pair(row[kind]) for kind in KINDS)
        library = f"{row['library']} {row['version']}".removesuffix(" -")
        costs = f"{row['build_seconds']:>9.1f}{row['microseconds_per_scored_token']:>11.0f}{row['bytes_stored']:>14,}"
        lines.append(f"{name:<18}{held_out:<26}{own:<18}{library:<26}{costs}  {'yes' if row['forward_only'] else 'no'}")
    return "\n".join(lines)


def _pair(found: Mapping[str, Any]) -> str:
    return f"{found['recall_at_1']['ppm'] / 1e6:.3f} / {found['mrr']['ppm'] / 1e6:.3f}"
