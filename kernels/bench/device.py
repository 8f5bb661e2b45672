"""What only a GPU can show: the compiled kernels at sizes that fit no block, and all of it inside CUDA graphs."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import checks, ops
from kernels.bench import cases

READOUTS = ((1, 3, 1), (3, 1001, 117), (37, 517, 600), (1, 20011, 64), (256, 262144, 4096))
PRODUCTS = ((1, 1, 1, 1), (70, 9, 65, 33), (256, 64, 4096, 64))
SCORES = (
    (1, 1, 1, 1, 1, 1),
    (70, 9, 65, 2, 33, 6),
    (40, 2, 3, 9, 70, 130),
    (33, 300, 2, 2, 5, 3),
    (600, 64, 64, 32, 64, 16),
)
HEADS = ((1, 1, 1, 1, 1, 1, 1, 1), (70, 9, 65, 7, 33, 6, 517, 5), (256, 64, 64, 224, 64, 16, 4096, 8))
STEPS = ((1, 1, 1), (5, 13, 519), (40, 2, 256), (64, 16, 65536))


def device_checks() -> Iterator[tuple[str, Callable[[], float]]]:
    """(name, check) as in `checks`: each check returns its error in units of the allowed one."""
    for dtype in (torch.float32, torch.bfloat16):
        on: dict[str, Any] = {"device": "cuda", "dtype": dtype}
        kind = str(dtype).removeprefix("torch.")
        for n, V, D in READOUTS:
            name = f"readout [{n}, {V}], D = {D}, {kind}"
            yield name, partial(checks.readout_error, ops.readout, n=n, V=V, D=D, **on)
        for n, slots, a, b in PRODUCTS:
            name = f"head_products [{n}, {a}] x {slots} [{b}, {a}], {kind}"
            yield name, partial(checks.products_error, ops.head_products, n=n, slots=slots, a=a, b=b, **on)
        for n, slots, m, taps, k, r in SCORES:
            sizes: dict[str, Any] = {"n": n, "slots": slots, "m": m, "taps": taps, "k": k, "r": r}
            yield (
                f"attribution_scores {sizes}, {kind}",
                partial(checks.scores_error, ops.attribution_scores, **sizes, **on),
            )
        for n, slots, m, taps, k, r, D, d in HEADS:
            sizes = {"n": n, "slots": slots, "m": m, "taps": taps, "k": k, "r": r, "D": D, "d": d}
            yield f"head_scores {sizes}, {kind}", partial(checks.head_scores_error, ops.head_scores, **sizes, **on)
        for contributors, examples, size in STEPS:
            sizes = {"contributors": contributors, "examples": examples, "size": size}
            yield f"trace_update {sizes}, {kind}", partial(checks.trace_error, ops.trace_update, **sizes, **on)
    yield "a score does not depend on its batch", partial(checks.batch_dependence, ops.head_scores, "cuda")
    yield "attribution in a CUDA graph", attribution_in_graph
    for slices in ((1,), (3, 1, 2, 1)):
        sizes = {"slices": slices, "most": 50, "tokens": 37, "r": 16, "rank": 6}
        yield f"taps {sizes}", partial(checks.sampled_error, **sizes, device="cuda")


def attribution_in_graph() -> float:
    """0 if a captured step, replayed on other logits, activations and slots, gives what the same step gives eagerly."""
    case = cases.llama8b(8, 32)
    readout, (_, h, P, H, K, slot) = case.readout("cuda"), case.heads("cuda")

    def step() -> Tensor:
        return ops.head_scores(ops.readout(*readout)[0], h, P, H, K, slot)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = step()
    readout[0].normal_()
    h.normal_()
    slot.copy_(torch.randint(-1, 8, slot.shape))
    graph.replay()
    return 0.0 if torch.equal(scores, step()) else float("inf")
