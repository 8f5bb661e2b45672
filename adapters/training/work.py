"""Where a run keeps what it does not publish."""

from __future__ import annotations

from pathlib import Path


def work_dir(package_dir: Path) -> Path:
    """A package's checkpoint and training trace lie beside it, in `<package>.work`; they are never uploaded."""
    return package_dir.with_name(package_dir.name + ".work")
