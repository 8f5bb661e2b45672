"""Train one LoRA adapter on an exported Datanet version, with its training trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.training.config import TrainingConfig
from adapters.training.progress import Progress, silent


@dataclass(frozen=True)
class TrainedAdapter:
    """What a run leaves behind: a PEFT package directory and what its record says."""

    package_dir: Path
    weights_digest: str
    datanet_version: str
    contributors: tuple[str, ...]
    steps: int
    final_loss_ppm: int
    compute_ms: int


def train_adapter(
    export_dir: Path,
    base_dir: Path,
    out_dir: Path,
    *,
    seed: int,
    config: TrainingConfig | None = None,
    trainer: str,
    host: str,
    progress: Progress = silent,
) -> TrainedAdapter:
    """Train on `export_dir` (a Datanet version's export) over the base in `base_dir`; write a package to `out_dir`."""
    raise NotImplementedError
