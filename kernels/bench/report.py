"""What a benchmark run says: tables on the terminal, one JSON file under docs/results."""

import importlib.util
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import triton

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def machine() -> dict[str, Any]:
    """The machine by its parts, not by its name."""
    described: dict[str, Any] = {
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def kind() -> str:
    """File name part: "cpu", or the GPU's name in lower case with dashes."""
    return re.sub(r"[^a-z0-9]+", "-", machine().get("gpu", "cpu").lower()).strip("-")


def commit() -> str:
    """The commit of the measured code, with "+" if kernels/ differs from it; "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, check=True, capture_output=True, text=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".."], cwd=here)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.returncode else "")


def write(folder: Path, results: dict[str, Any], suffix: str = "") -> Path:
    """`results` with date, machine and commit, as kernels-<kind><suffix>.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kernels-{kind()}{suffix}.json"
    stamp = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), "commit": commit()}
    path.write_text(json.dumps(stamp | results, indent=1) + "\n")
    return path


def show(title: str, rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Print dataclass instances (or dictionaries) as a table, and return them as dictionaries."""
    records = [row if isinstance(row, dict) else asdict(row) for row in rows]
    if importlib.util.find_spec("rich") is None:  # a bare GPU machine
        print(title, *records, sep="\n")
        return records
    from rich.console import Console
    from rich.table import Table

    table = Table(*(records[0] if records else ()), title=title)
    for record in records:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in record.values()))
    Console(width=200).print(table)
    return records


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()
