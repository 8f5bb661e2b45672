"""Triton kernel of `reference.trace_update`: per-contributor gradients and the decomposed AdamW step, in one launch, in
place.

Memory plan. A program owns BLOCK parameters of all contributors. It adds up the example gradients once for the second
moment, then once more contributor by contributor (from L1 and L2), so that memory is read and written once per state: 4
(2 C + 2) bytes read and as many written per parameter, and 4 E read, with C contributors and E examples in fp32. The
gradients of contributors are never stored.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.reference import AdamW

BLOCK = 256  # parameters per program; wider blocks leave the second pass over the examples outside L1


def trace_update(
    parameter: Tensor,
    trace: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    gradient: Tensor,
    owner: Tensor,
    adamw: AdamW,
) -> None:
    """The step of `reference.trace_update`, in place. All tensors contiguous, the states fp32."""
    assert all(t.is_contiguous() for t in (parameter, trace, first_moment, second_moment, gradient))
    contributors, size = len(trace), parameter.numel()
    order = owner.argsort(stable=True).to(torch.int32)
    marks = torch.arange(contributors + 1, dtype=owner.dtype, device=owner.device)
    bounds = torch.searchsorted(owner[order], marks).to(torch.int32)
    _step[(triton.cdiv(size, BLOCK),)](
        parameter, trace, first_moment, second_moment, gradient, order, bounds, size, contributors,
        float(adamw.decay), -adamw.lr / adamw.correction1, float(adamw.beta1), 1.0 - adamw.beta1,
        float(adamw.beta2), 1.0 - adamw.beta2, float(adamw.correction2), float(adamw.eps),
        BLOCK=BLOCK, num_warps=2,
    )  # fmt: skip


@triton.jit
def _step(
    parameter, trace, first_moment, second_moment, gradient, order, bounds, size, contributors,
    decay, rate, beta1, rest1, beta2, rest2, correction2, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program p, BLOCK parameters, rest = 1 - beta (in fp32 1 - 0.999 would be off by 3e-5); examples order[bounds[c] :
    bounds[c + 1]] are those of contributor c.

    v <- beta2 v + (1 - beta2) (sum_e g_e)^2        m_c <- beta1 m_c + (1 - beta1) sum_{e of c} g_e
    d_c = rate m_c / (sqrt(v / correction2) + eps)
    trace_c <- decay trace_c + d_c                  parameter <- decay parameter + sum_c d_c
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    total = tl.zeros([BLOCK], tl.float32)
    for e in range(tl.load(bounds), tl.load(bounds + contributors)):
        row = tl.load(order + e).to(tl.int64)
        total += tl.load(gradient + row * size + at, inside, other=0.0).to(tl.float32)
    v = beta2 * tl.load(second_moment + at, inside, other=0.0) + rest2 * total * total
    scale = rate / (tl.sqrt(v / correction2) + eps)
    tl.store(second_moment + at, v, inside)
    m_c = first_moment + at
    trace_c = trace + at
    moved = tl.zeros([BLOCK], tl.float32)
    for c in range(contributors):
        g = tl.zeros([BLOCK], tl.float32)
        for e in range(tl.load(bounds + c), tl.load(bounds + c + 1)):
            row = tl.load(order + e).to(tl.int64)
            g += tl.load(gradient + row * size + at, inside, other=0.0).to(tl.float32)
        m = beta1 * tl.load(m_c, inside, other=0.0) + rest1 * g
        tl.store(m_c, m, inside)
        tl.store(trace_c, decay * tl.load(trace_c, inside, other=0.0) + scale * m, inside)
        moved += scale * m
        m_c += size
        trace_c += size
    tl.store(parameter + at, decay * tl.load(parameter + at, inside, other=0.0) + moved, inside)
