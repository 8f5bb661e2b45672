"""dattri-llm: grad-dot, grad-cos, TracIn and EK-FAC from per-example gradients that its hooks capture."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from adapters.bench.peers.reader import Rows, World
from adapters.bench.peers.result import Result, Stopwatch


class Sequences(Dataset[dict[str, Tensor]]):
    """Rows as dictionaries; the model is given all of it, since the library names a sequence by what the model got."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        names = ("hidden", "at", "target", "weight", "index")
        return {name: getattr(self.rows, name)[i] for name in names}


def grad_dot(world: World, work: Path) -> Result:
    """<query's margin gradient, example's log p gradient> at the final weights."""
    return _run(world, work, "TracInAttributor", [None])


def grad_cos(world: World, work: Path) -> Result:
    """The same, divided by both norms."""
    return _run(world, work, "TracInAttributor", [None], normalized_grad=True)


def tracin(world: World, work: Path) -> Result:
    """grad-dot summed over points of the run, each times the learning rates it stands for (Pruthi et al. 2020)."""
    segments = world.segments()
    total, parts = None, []
    for rate, weights, _ in segments:
        part = _run(world, work, "TracInAttributor", [weights])
        total = part.scores * rate if total is None else total + part.scores * rate
        parts.append(part)
    assert total is not None
    build = float(world.facts.get("replay_seconds", 0.0)) + sum(part.build_seconds for part in parts)
    score = sum(part.score_seconds for part in parts)
    stored = sum(part.bytes_stored for part in parts)
    note = f"{len(segments)} checkpoints along the run"
    return Result(total, "dattri-llm", version("dattri-llm"), "margin", build, score, stored, False, note)


def ekfac(world: World, work: Path) -> Result:
    """Influence with the Kronecker-factored empirical Fisher, eigenvalues corrected; damping 0.1 of their mean."""
    return _run(world, work, "EKFACAttributor", [None], damping=0.1, relative_damping=True)


def _run(world: World, work: Path, attributor: str, checkpoints: list[Any], **options: Any) -> Result:
    import dattri_llm
    from dattri_llm import AttributionArguments, AttributionTask, GradientStorageManager, HookManagerConfig

    rows, queries = world.rows
    upper = world.upper

    def load(model: nn.Module, checkpoint: dict[str, Tensor] | None) -> nn.Module:
        if checkpoint is not None:
            model.load_state_dict(checkpoint, strict=False)
        return model

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return -model(**batch).sum()

    def unlikely(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return -model(**batch, margin=True).sum()

    arguments = AttributionArguments(
        output_dir=str(work), per_device_train_batch_size=16, per_device_eval_batch_size=16, use_cpu=True
    )
    task = AttributionTask(loss, upper, checkpoints=checkpoints, target_func=unlikely, checkpoints_load_func=load)
    made = getattr(dattri_llm, attributor)(arguments, task=task)
    hooks = HookManagerConfig(linear_io=upper.lora_modules())
    made.load_checkpoint(0)
    clock = Stopwatch()
    with (
        GradientStorageManager(str(work / "train"), residency="memory") as train_store,
        GradientStorageManager(str(work / "queries"), residency="memory") as query_store,
        torch.enable_grad(),
    ):
        made.collect_gradients(made.generate_train_rep(Sequences(rows), hook_config=hooks), train_store)
        build = clock.lap()
        test = made.generate_test_rep(Sequences(queries), hook_config=hooks, shard=False)
        made.collect_gradients(test, query_store)
        score = made.attribute_from_cache(train_store, query_store, **options)
        taken = clock.lap()
    names, matrix = score.agnostic_matrix()
    if len(names) != len(rows) or matrix.shape[1] != len(queries):
        raise RuntimeError(f"{len(names)} x {matrix.shape[1]} scores for {len(rows)} x {len(queries)} sequences")
    stored = sum(line_bytes(world, len(line.ids)) for line in world.train)
    scores = world.by_contributor(matrix)
    return Result(scores, "dattri-llm", version("dattri-llm"), "margin", build, taken, stored, False)


def line_bytes(world: World, tokens: int) -> int:
    """Bytes of one sequence's factorised gradient, fp32: h and g of every token and module."""
    modules = [world.upper.get_submodule(name) for name in world.upper.lora_modules()]
    return 4 * tokens * sum(m.in_features + m.out_features for m in modules)  # type: ignore[operator, misc]
