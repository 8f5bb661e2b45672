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
    """What attribution adds to a decode step: taps, readout and scores in one CUDA graph, beside the step's own."""

    case: str
    context: int
    decode_seconds: float
    attribution_seconds: float
    share: float


def speeds(bandwidth: float) -> Iterator[Speed]:
    """Readout and scores at each decode size, then the trace update."""
    for case in cases.ON_GPU:
        readout = partial(_speed, "readout", case.name, case.readout_bytes(), bandwidth)
        yield readout(ops.readout, eager.readout, case.readout("cuda"))
        for name, inputs, size in (
            ("P", case.narrow_u, (case.D, case.k)),
            ("H", case.narrow_h, (case.taps * case.r, case.d)),
        ):
            product = partial(_speed, f"head_products, {name}", case.name, case.product_bytes(*size), bandwidth)
            yield product(ops.head_products, eager.head_products, inputs("cuda"))
        scores = partial(_speed, "attribution_scores", case.name, case.scores_bytes(), bandwidth)
        yield scores(ops.attribution_scores, eager.attribution_scores, case.scores("cuda"))
    step = cases.LORA_8B
    update = partial(_speed, "trace_update", step.name, step.bytes(), bandwidth)
    yield update(ops.trace_update, eager.trace_update, step.states("cuda"))


def shares() -> Iterator[Share]:
    """8 and 64 sequences, each of its own adapter."""
    for case in (cases.llama8b(8, 8), cases.llama8b(64, 64)):
        decode = statistics.median(on_gpu(DecodeStep(Model(), case.n, CONTEXT), repeats=20))
        attribution = statistics.median(on_gpu(_attribution(case)))
        yield Share(case.name, CONTEXT, decode, attribution, attribution / decode)


def _attribution(case: cases.Decode) -> Callable[[], Tensor]:
    """All that a step runs for attribution: a copy per tap, the readout direction, the heads' products."""
    taps = Taps(case.taps, case.n, case.r, torch.float32, "cuda")
    shrunk = torch.randn(1, case.n, case.r, device="cuda")
    positions = torch.arange(case.n, device="cuda")
    of_readout = case.readout("cuda")
    (_, P, slot), (_, H, _), (_, _, K, _) = case.narrow_u("cuda"), case.narrow_h("cuda"), case.scores("cuda")

    def run() -> Tensor:
        for l in range(case.taps):
            taps.keep(shrunk, l)
        u = ops.head_products(ops.readout(*of_readout)[0], P, slot)
        h = ops.head_products(taps.sampled(positions).flatten(1), H, slot)
        return ops.attribution_scores(u, h[:, None], K, slot)

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
