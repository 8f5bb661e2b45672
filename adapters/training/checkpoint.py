"""Checkpoints of a run: one safetensors file, replaced atomically, so that kill -9 loses at most its interval."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapters.training.errors import CheckpointMismatch


def write_checkpoint(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside `path`, fsync, rename over it."""
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_checkpoint(path: Path, run: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and metadata, or None when there is no file. Raises CheckpointMismatch when it is of another run."""
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        if metadata.get("run") != run:
            raise CheckpointMismatch(f"{path} belongs to another run; remove its directory to start anew")
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
