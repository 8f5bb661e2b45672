"""bergson: TrackStar (Chang et al. 2024) from its in-memory gradient collector."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.bench.peers.reader import Line, World
from adapters.bench.peers.result import Result, Stopwatch

PROJECTION = 16
"""Rows and columns a module's gradient is projected to: the library's default for TrackStar."""


def trackstar(world: World, work: Path) -> Result:
    """<unit(H^-1/2 query), unit(H^-1/2 example)>, H the damped second moment of projected training gradients.

    Queries are the margin (the library's "log_odds" loss), examples the log p. Without an optimizer's second moments.
    """
    from bergson import GradientProcessor
    from bergson.hessians.preconditioner import DensePreconditioner
    from bergson.process_grads import normalize_and_aggregate_grads

    processor = GradientProcessor(projection_dim=PROJECTION, projection_seed=0)
    clock = Stopwatch()
    with torch.enable_grad():
        train = _collect(world, world.train, "ce", processor, work)
    root = DensePreconditioner.from_processor(processor, power=-0.5)

    def ready(gradients: dict[str, Tensor]) -> Tensor:
        found = root.apply(gradients)
        unit = normalize_and_aggregate_grads(found, list(found), True, torch.device("cpu"))
        return torch.cat(list(unit.values()), dim=1)

    examples = ready(train)
    processor.hessians.clear()  # or the collector would take them for those of the queries
    build = clock.lap()
    with torch.enable_grad():
        asked = _collect(world, world.queries, "log_odds", processor, work, hessians=False)
    scores = world.by_contributor(examples @ ready(asked).T)
    note = f"{PROJECTION} x {PROJECTION} projected numbers a module"
    return Result(
        scores, "bergson", version("bergson"), "margin", build, clock.lap(), examples.numel() * 4, False, note
    )


def _collect(
    world: World, lines: list[Line], loss: str, processor: Any, work: Path, *, hessians: bool = True
) -> dict[str, Tensor]:
    """Projected gradient [N, numbers] of each module; with `hessians` the processor learns their second moment."""
    from bergson import CollectorComputer, InMemoryCollector
    from bergson.config.config import IndexConfig
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from pyarrow import table

    model = world.peft_model.get_base_model()
    columns = {
        "input_ids": [list(line.ids) for line in lines],
        "labels": [[i if own else -100 for i, own in zip(x.ids, x.supervised, strict=True)] for x in lines],
        "length": [len(line.ids) for line in lines],
    }
    # With a fingerprint given: datasets 5.2 cannot make one of a table (dill does not find MonthDayNano).
    data = Dataset(InMemoryTable(table(columns)), fingerprint=loss)
    config: Any = IndexConfig(run_path=str(work / loss), loss_fn=loss, projection_dim=PROJECTION, projection_seed=0)
    config.partial_run_path.mkdir(parents=True)
    collector: Any = InMemoryCollector(
        model=model.base_model,
        data=data,
        cfg=config,
        processor=processor,
        target_modules={f"{name.removeprefix('model.')}.lora_B.default" for name in world.facts["lora"]["modules"]},
        skip_hessians=not hessians,
    )
    batches = [list(range(i, min(i + 8, len(lines)))) for i in range(0, len(lines), 8)]
    computer = CollectorComputer(model=model, data=data, collector=collector, batches=batches, cfg=config)
    computer.run_with_collector_hooks(desc=loss)
    return {name: gradient.float() for name, gradient in collector.gradients.items()}
