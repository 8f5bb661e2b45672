"""python -m kernels.bench.sweep [--out FOLDER]: on a GPU, each kernel's share of a step and the launchers' constants.

What the constants in kernels/ were chosen by: medians of CUDA graph replays from a cold L2, one constant changed at a
time. Writes kernels-<machine kind>-sweep.json.
"""

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from kernels import ops, readout, scores, trace
from kernels.bench import cases, gpu, report, timing

STEPS = 10
CHUNKS = [{"CHUNK": chunk} for chunk in (2048, 4096, 8192)]
ROWS = ((8, 512), (16, 256), (32, 256), (32, 128), (16, 512), (64, 128), (16, 1024))
ROWS_READ = [{"WORDS": words, "MAX_BLOCK_D": block} for words, block in ROWS]
SHARES = ((256, 64), (128, 64), (512, 64), (256, 32), (256, 128), (128, 128), (128, 32))
SHARED = [{"SHARE": share, "STEP": step} for share, step in SHARES]
CONTRACTED = [{"TAPS": taps, "COLUMN_BYTES": size} for taps in (4, 8, 16, 32) for size in (128, 256, 512)]
BLOCKS = ((128, 16), (64, 16), (256, 16), (128, 8), (128, 32), (64, 32), (256, 8))
UPDATED = [{"BLOCK": block, "MAX_BLOCK_C": contributors} for block, contributors in BLOCKS]

DEFAULTS = {
    name: getattr(module, name)
    for module, names in (
        (readout, ("CHUNK", "WORDS", "MAX_BLOCK_D")),
        (scores, ("SHARE", "STEP", "TAPS", "COLUMN_BYTES")),
        (trace, ("BLOCK", "MAX_BLOCK_C")),
    )
    for name in names
}


def shares_of_a_step(case: cases.Decode) -> Iterator[dict[str, Any]]:
    """Microseconds of each kernel in the whole of attribution, by the profiler."""
    step = gpu.attribution_step(case)
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    step()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(STEPS):
            flush.zero_()
            step()
        torch.cuda.synchronize()
    for event in seen.key_averages():
        if event.device_time_total and "Memset" not in event.key and event.key != "aten::zero_":
            yield {"case": case.name, "kernel": event.key[:60], "us": event.device_time_total / STEPS}


def variants(what: str, case: str, module: ModuleType, changes: list[dict[str, int]], run: Any) -> Iterator[Any]:
    """Median microseconds of `run` under each change of the module's constants."""
    for change in changes:
        values: Any = change
        with mock.patch.multiple(module, **values):
            yield {"what": what, "case": case, **change, "us": 1e6 * statistics.median(timing.on_gpu(run, 30))}


def sweep() -> Iterator[dict[str, Any]]:
    """All variants of all launchers."""
    for case in cases.ON_GPU:
        read = partial(ops.readout, *case.readout("cuda"))
        yield from variants("readout", case.name, readout, CHUNKS + ROWS_READ, read)
        yield from variants("head_scores", case.name, scores, SHARED, partial(ops.head_scores, *case.heads("cuda")))
    for dtype in (torch.bfloat16, torch.float32):
        case = cases.ON_GPU[-1]
        wide = partial(ops.attribution_scores, *case.wide_scores("cuda", dtype))
        yield from variants(f"attribution_scores, wide, {dtype}", case.name, scores, CONTRACTED, wide)
    update = partial(ops.trace_update, *cases.LORA_8B.states("cuda"))
    yield from variants("trace_update", cases.LORA_8B.name, trace, UPDATED, update)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kernels.bench.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the JSON file")
    folder = parser.parse_args().out
    if not torch.cuda.is_available():
        raise SystemExit("the constants are those of a GPU, and there is none here")
    kernels = [row for case in cases.ON_GPU for row in shares_of_a_step(case)]
    results: dict[str, Any] = {"copy_bytes_per_second": timing.copy_bandwidth(), "defaults": DEFAULTS}
    results["kernels"] = report.show("Microseconds a step", kernels)
    results["variants"] = report.show("Constants", sweep())
    print(report.write(folder, results, "-sweep"))


if __name__ == "__main__":
    main()
