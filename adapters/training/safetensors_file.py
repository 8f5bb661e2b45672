"""Torch tensors in safetensors files whose bytes follow from their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adapters.tensor_writer import write_tensors


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write fp32 and fp64 tensors: see `adapters.tensor_writer`."""
    write_tensors(path, {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}, metadata)
