"""Where a run keeps what it does not publish."""

from __future__ import annotations

from pathlib import Path

from adapters.composition import parse_composition
from adapters.digests import hex_of
from adapters.errors import BadSafetensors
from adapters.layout import COMPOSITION, HEAD, RECORD
from adapters.record import parse_record
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


def missing_trace(package_dir: Path, works: Path) -> str | None:
    """Why an installed package cannot be scored from training traces; None when it can.

    A composed package needs the traces of all its parts, which are installed beside it.
    """
    if (package_dir / COMPOSITION).is_file():
        for part in parse_composition((package_dir / COMPOSITION).read_bytes()).parts:
            directory = package_dir.parent / hex_of(part)
            why = missing_trace(directory, works) if (directory / HEAD).is_file() else "no package with a head is here"
            if why is not None:
                return f"part {part}: {why}"
        return None
    if not (package_dir / RECORD).is_file():
        return "the package has no training record"
    weights = parse_record((package_dir / RECORD).read_bytes()).weights
    return None if find_trace(works, weights) else f"no training trace of {weights} under {works}"
