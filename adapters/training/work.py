"""Where a run keeps what it does not publish."""

from __future__ import annotations

from pathlib import Path

from adapters.errors import BadSafetensors
from adapters.tensors import read_header


def work_dir(package_dir: Path) -> Path:
    """A package's checkpoint and training trace lie beside it, in `<package>.work`; they are never uploaded."""
    return package_dir.with_name(package_dir.name + ".work")


def find_trace(works: Path, weights: str) -> Path | None:
    """The training trace of the adapter weights with this digest, under a directory of packages; None when absent."""
    for path in sorted(works.glob("*.work/trace.safetensors")):
        try:
            if read_header(path).metadata.get("run") == weights:
                return path
        except BadSafetensors:
            continue  # cut off, or not ours: as good as none
    return None
