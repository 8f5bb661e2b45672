"""The operations as the engine and the trainer call them: Triton for CUDA tensors, batched torch for the rest.

Shapes, equations and meaning are those of `kernels.reference`. The Triton modules are imported on the first CUDA tensor
only, so that a machine without triton serves on its CPU.
"""

from torch import Tensor

from kernels import cpu
from kernels.reference import AdamW


def readout(
    logits: Tensor, emitted: Tensor, normed: Tensor, unembedding: Tensor, mean_row: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Readout direction u [n, D] and margin [n] (nats), fp32; see `reference.readout`."""
    if logits.is_cuda:
        from kernels import readout as triton_readout

        return triton_readout.readout(logits, emitted, normed, unembedding, mean_row, g)
    return cpu.readout(logits, emitted, normed, unembedding, mean_row, g)


def head_products(x: Tensor, W: Tensor, slot: Tensor) -> Tensor:
    """Products [n, b] of each row of x [n, a] with its head's W [slots, b, a], fp32; see `reference.head_products`."""
    if x.is_cuda:
        from kernels import scores as triton_scores

        return triton_scores.head_products(x, W, slot)
    return cpu.head_products(x, W, slot)


def attribution_scores(u: Tensor, h: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m], fp32, zero where slot = -1; see `reference.attribution_scores`."""
    if u.is_cuda:
        from kernels import scores as triton_scores

        return triton_scores.attribution_scores(u, h, K, slot)
    return cpu.attribution_scores(u, h, K, slot)


def head_scores(u: Tensor, h: Tensor, P: Tensor, H: Tensor | None, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m], fp32, of heads that narrow u and h first; see `reference.head_scores`."""
    if u.is_cuda:
        from kernels import scores as triton_scores

        return triton_scores.head_scores(u, h, P, H, K, slot)
    if H is not None:
        h = cpu.head_products(h.flatten(1), H, slot)[:, None]
    return cpu.attribution_scores(cpu.head_products(u, P, slot), h, K, slot)


def trace_update(
    parameter: Tensor,
    trace: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    gradient: Tensor,
    owner: Tensor,
    adamw: AdamW,
) -> None:
    """The step of `reference.trace_update`, written into the four states in place."""
    if parameter.is_cuda:
        from kernels import trace as triton_trace

        return triton_trace.trace_update(parameter, trace, first_moment, second_moment, gradient, owner, adamw)
    return cpu.trace_update(parameter, trace, first_moment, second_moment, gradient, owner, adamw)
