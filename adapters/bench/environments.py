"""Where peers' libraries live: one folder of pinned packages each, put before the project's own on the path.

A folder rather than a whole virtual environment: torch and transformers (gigabytes) are the project's, so that every
row computes with the same kernels. Nothing of a folder is visible to the project itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from adapters.bench.rows import ENVIRONMENTS


class EnvironmentFailed(OSError):
    """pip could not install an environment's packages."""


def environment(name: str, cache_dir: Path) -> Path:
    """The folder of an environment under `cache_dir`, built on first use. Raises EnvironmentFailed."""
    packages = ENVIRONMENTS[name]
    folder = environment_path(name, cache_dir)
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as work:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target"]
        done = subprocess.run([*command, f"{work}/packages", *packages], capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise EnvironmentFailed(f"pip install {packages[0]}: {last[0]}")
        shutil.move(f"{work}/packages", folder)
    return folder


def environment_path(name: str, cache_dir: Path) -> Path:
    """Named by its pins, so that other pins are another folder."""
    pins = sha256("\n".join(ENVIRONMENTS[name]).encode()).hexdigest()[:8]
    return cache_dir / f"{name}-{pins}"


def variables(folder: Path | None) -> dict[str, str]:
    """The environment variables of a row's process."""
    found = dict(os.environ)
    if folder is not None:
        found["PYTHONPATH"] = os.pathsep.join([str(folder.resolve()), *filter(None, [found.get("PYTHONPATH")])])
    return found
