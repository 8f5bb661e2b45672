"""Fit the attribution head of a trained package and write its fidelity report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.training.config import HeadConfig
from adapters.training.progress import Progress, silent


@dataclass(frozen=True)
class FittedHead:
    """A head written beside the PEFT files of its package, and its fidelity report (canonical JSON values)."""

    head_path: Path
    head_digest: str
    fidelity: dict[str, Any]


def fit_head(
    package_dir: Path,
    export_dir: Path,
    base_dir: Path,
    *,
    config: HeadConfig | None = None,
    progress: Progress = silent,
) -> FittedHead:
    """Fit `attribution_head.safetensors` and `fidelity.json` into `package_dir`."""
    raise NotImplementedError
