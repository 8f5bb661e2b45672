"""python -m kernels.bench [--out FOLDER]: check every kernel, compile it ahead of time, time it where it runs."""

import argparse
from pathlib import Path
from typing import Any

import torch

from kernels.bench import cases, cpu, gate, report


def main() -> None:
    """Print the tables and write kernels-<machine kind>.json; `gate.WrongResult` comes before any timing."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the JSON file")
    folder = parser.parse_args().out
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict[str, Any] = {
        "checks": report.show("Checks against the fp64 reference", gate.checked(device)),
        "compiled": report.show("Compiled ahead of time", cases.compiled()),
    }
    if device == "cuda":
        from kernels.bench import gpu, timing

        bandwidth = timing.copy_bandwidth()
        results["copy_bytes_per_second"] = bandwidth
        results["speeds"] = report.show(f"Copy bandwidth {bandwidth / 1e12:.2f} TB/s", gpu.speeds(bandwidth))
        results["shares"] = report.show("Share of an 8B decode step", gpu.shares())
    else:
        rows = ({"operation": o, "case": c, **vars(ratio)} for o, c, ratio in cpu.measure())
        results["speeds"] = report.show("Batched torch against the specification, CPU", rows)
    print(report.write(folder, results))


if __name__ == "__main__":
    main()
