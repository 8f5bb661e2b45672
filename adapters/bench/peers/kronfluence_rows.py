"""kronfluence: EK-FAC influence (Grosse et al. 2023)."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from adapters.bench.peers.reader import Rows, World
from adapters.bench.peers.result import Result, Stopwatch


def ekfac(world: World, work: Path) -> Result:
    """EK-FAC over every B with the empirical Fisher and the library's damping (0.1 of the mean eigenvalue)."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    names = world.upper.lora_modules()

    class Attribution(Task):
        def compute_train_loss(self, batch: tuple[Tensor, ...], model: nn.Module, sample: bool = False) -> Tensor:
            return -model(*batch).sum()

        def compute_measurement(self, batch: tuple[Tensor, ...], model: nn.Module) -> Tensor:
            return model(*batch, margin=True).sum()

        def get_influence_tracked_modules(self) -> list[str]:
            return names

    rows, queries = world.rows
    clock = Stopwatch()
    task = Attribution()
    model: Any = prepare_model(world.upper, task)
    analyzer = Analyzer("world", model, task, cpu=True, output_dir=str(work), disable_tqdm=True)
    with torch.enable_grad():
        analyzer.fit_all_factors(
            "ekfac",
            _dataset(rows),
            per_device_batch_size=16,
            factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=True),
            overwrite_output_dir=True,
        )
        build = clock.lap()
        analyzer.compute_pairwise_scores(
            "scores",
            "ekfac",
            query_dataset=_dataset(queries),
            train_dataset=_dataset(rows),
            per_device_query_batch_size=len(queries),
            per_device_train_batch_size=16,
            score_args=ScoreArguments(damping_factor=None),
            overwrite_output_dir=True,
        )
    influence = analyzer.load_pairwise_scores("scores")["all_modules"].T
    stored = sum(path.stat().st_size for path in work.rglob("*.safetensors") if "scores" not in path.parts[-2])
    # The library's product is of the loss's gradient: up is what lowers the margin.
    note = "scoring runs over the training examples again"
    return Result(
        world.by_contributor(-influence),
        "kronfluence",
        version("kronfluence"),
        "margin",
        build,
        clock.lap(),
        stored,
        False,
        note,
    )


def _dataset(rows: Rows) -> TensorDataset:
    return TensorDataset(*rows.tensors())
