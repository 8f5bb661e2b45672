"""Where the benchmark ran."""

import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

import torch


def fast_dtype() -> str:
    """bfloat16 where the processor multiplies it natively, float32 elsewhere."""
    native = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def machine_and_commit() -> dict[str, object]:
    """Processor, cores, load, torch and commit: members of the benchmark's JSON."""
    model = platform.processor()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "commit": commit,
        "machine": {"cores": os.cpu_count(), "cpu": model, "load_average": os.getloadavg()[0]},
        "torch": torch.__version__,
    }
