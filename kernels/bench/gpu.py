"""On a CUDA machine: every kernel as a fraction of the copy bandwidth, against eager torch and torch.compile, and the
whole of attribution as a share of an 8B decode step."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import ops
from kernels.bench import cases, eager
from kernels.bench.decode import DecodeStep, Model
from kernels.bench.timing import on_gpu
from kernels.tap import Taps

CONTEXT = 2048


@dataclass(frozen=True)
class Speed:
    """Median seconds of one operation; `bandwidth_share` is of the copy bandwidth, by the bytes that must move."""

    operation: str
    case: str
    seconds: float
    p10: float
    p90: float
    bandwidth_share: float
    eager_seconds: float
    compiled_seconds: float


@dataclass(frozen=True)
class Share:
    """What attribution adds to a decode step: all of it in one CUDA graph, beside the step's own."""

    case: str
    context: int
    decode_seconds: float
    attribution_seconds: float
    share: float


def speeds(bandwidth: float) -> Iterator[Speed]:
    """Readout and scores at each decode size, of narrow heads and of wide ones, then the trace update."""
    for case in cases.ON_GPU:
        readout = partial(_speed, "readout", case.name, case.readout_bytes(), bandwidth)
        yield readout(ops.readout, eager.readout, case.readout("cuda"))
        heads = partial(_speed, "head_scores", case.name, case.heads_bytes(), bandwidth)
        yield heads(ops.head_scores, eager.head_scores, case.heads("cuda"))
        for dtype in (torch.bfloat16, torch.float32):
            name = f"attribution_scores, wide, {str(dtype).removeprefix('torch.')}"
            moved = case.scores_bytes(case.taps * case.r, dtype)
            wide = partial(_speed, name, case.name, moved, bandwidth)
            yield wide(ops.attribution_scores, eager.attribution_scores, case.wide_scores("cuda", dtype))
    step = cases.LORA_8B
    update = partial(_speed, "trace_update", step.name, step.bytes(), bandwidth)
    yield update(ops.trace_update, eager.trace_update, step.states("cuda"))


def shares() -> Iterator[Share]:
    """8 and 64 sequences, each of its own adapter."""
    for case in (cases.llama8b(8, 8), cases.llama8b(64, 64)):
        decode = statistics.median(on_gpu(DecodeStep(Model(), case.n, CONTEXT), repeats=20))
        attribution = statistics.median(on_gpu(attribution_step(case)))
        yield Share(case.name, CONTEXT, decode, attribution, attribution / decode)


def attribution_step(case: cases.Decode) -> Callable[[], Tensor]:
    """All that a step runs for attribution: the taps of the sampled tokens, the readout direction, the scores of the
    heads, rounded to micro-nats. The modules' shrinks write into the tap memory themselves."""
    taps = Taps(range(case.taps), case.n, case.r, "cuda")
    taps.kept.normal_()
    every, positions = torch.arange(case.taps, device="cuda"), torch.arange(case.n, device="cuda")
    of_readout = case.readout("cuda")
    _, _, P, H, K, slot = case.heads("cuda")

    def run() -> Tensor:
        taps.begin(case.n)
        h = taps.sampled(every, positions, case.r)
        scores = ops.head_scores(ops.readout(*of_readout)[0], h, P, H, K, slot)
        return torch.round(scores.double() * 1e6).to(torch.int64)

    return run


def _speed(
    operation: str,
    case: str,
    moved: int,
    bandwidth: float,
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Speed:
    times = on_gpu(partial(ours, *arguments))
    median = statistics.median(times)
    return Speed(
        operation=operation,
        case=case,
        seconds=median,
        p10=times[len(times) // 10],
        p90=times[-1 - len(times) // 10],
        bandwidth_share=moved / median / bandwidth,
        eager_seconds=statistics.median(on_gpu(partial(theirs, *arguments))),
        compiled_seconds=statistics.median(on_gpu(partial(torch.compile(theirs), *arguments))),
    )
