"""Time spent, with intervals."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_FLUSH_BYTES = 256 << 20  # more than the L2 of any GPU we know


@dataclass(frozen=True)
class Ratio:
    """How many times as long `other` takes: the median of paired runs with the 95% interval of a bootstrap."""

    seconds: float
    other_seconds: float
    ratio: float
    low: float
    high: float
    pairs: int


def paired(run: Callable[[], object], other: Callable[[], object], pairs: int = 25) -> Ratio:
    """Run both in alternation, the first of each pair changing, after two runs to warm up."""
    for _ in range(2):
        run(), other()
    ours: list[float] = []
    theirs: list[float] = []
    for i in range(pairs):
        for mine in (True, False) if i % 2 else (False, True):
            start = time.perf_counter()
            run() if mine else other()
            (ours if mine else theirs).append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    resample = random.Random(0)
    medians = sorted(statistics.median(resample.choices(ratios, k=pairs)) for _ in range(2000))
    return Ratio(
        statistics.median(ours), statistics.median(theirs), statistics.median(ratios), medians[50], medians[-51], pairs
    )


def on_gpu(run: Callable[[], object], repeats: int = 50) -> list[float]:
    """Seconds of each replay of `run` in a CUDA graph on the current GPU, sorted, each from a cold L2."""
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles, warms up, and leaves nothing to allocate
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in marks:
        flush.zero_()
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return sorted(start.elapsed_time(end) / 1e3 for start, end in marks)


def copy_bandwidth() -> float:
    """Bytes per second, read plus written, of a copy of 4 GiB: the best of the driver's copy and a kernel's."""
    source = torch.zeros(1 << 30, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    copies = (lambda: target.copy_(source)), (lambda: torch.bitwise_not(source, out=target))
    seconds = min(statistics.median(on_gpu(copy, repeats=20)) for copy in copies)
    return 2 * source.nbytes / seconds
