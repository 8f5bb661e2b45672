"""What only a GPU can show: the compiled kernels at sizes that fit no block, and all of it inside CUDA graphs."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import checks, copy_rows, ops
from kernels.bench import cases
from kernels.tap import Taps

READOUTS = ((1, 3, 1), (3, 1001, 117), (37, 517, 600), (1, 20011, 64), (256, 262144, 4096))
PRODUCTS = ((1, 1, 1, 1), (70, 9, 65, 33), (256, 64, 4096, 64))
SCORES = (
    (1, 1, 1, 1, 1, 1),
    (70, 9, 65, 2, 33, 6),
    (40, 2, 3, 9, 70, 130),
    (33, 300, 2, 2, 5, 3),
    (600, 64, 64, 32, 64, 16),
)
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
        for contributors, examples, size in STEPS:
            sizes = {"contributors": contributors, "examples": examples, "size": size}
            yield f"trace_update {sizes}, {kind}", partial(checks.trace_error, ops.trace_update, **sizes, **on)
        yield f"copy_rows, {kind}", partial(checks.copy_error, copy_rows.copy_rows, slices=3, tokens=37, r=6, **on)
    yield "a score does not depend on its batch", partial(checks.batch_dependence, ops.attribution_scores, "cuda")
    yield "attribution in a CUDA graph", attribution_in_graph
    yield "tap in a compiled CUDA graph", tap_in_graph


def attribution_in_graph() -> float:
    """0 if a captured step, replayed on other logits, activations and slots, gives what the same step gives eagerly."""
    case = cases.llama8b(8, 32)
    readout, (_, P, _), (_, h, K, slot) = case.readout("cuda"), case.narrow_u("cuda"), case.scores("cuda")

    def step() -> Tensor:
        return ops.attribution_scores(ops.head_products(ops.readout(*readout)[0], P, slot), h, K, slot)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = step()
    readout[0].normal_()
    h.normal_()
    slot.copy_(torch.randint(-1, 8, slot.shape))
    graph.replay()
    return 0.0 if torch.equal(scores, step()) else float("inf")


def tap_in_graph() -> float:
    """0 if a layer compiled for CUDA graphs keeps its shrink output at the same address, replay after replay."""
    taps = Taps(3, 16, 6, torch.float32, "cuda")
    A, address = torch.randn(6, 32, device="cuda"), taps.kept.data_ptr()

    @torch.compile(fullgraph=True, mode="reduce-overhead")
    def layer(x: Tensor) -> Tensor:
        y = (x @ A.T)[None]
        taps.keep(y, 1)
        return x + (y[0] @ A).relu()

    for _ in range(5):
        x = torch.randn(7, 32, device="cuda")
        layer(x)
        if not torch.allclose(taps.kept[1, :7], x @ A.T, atol=1e-3) or taps.kept.data_ptr() != address:
            return float("inf")
    return 0.0
