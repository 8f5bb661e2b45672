"""Triton kernel of `reference.trace_update`: per-contributor gradients and the decomposed AdamW step, in one launch, in
place.

Memory plan. A program owns BLOCK parameters of all contributors. It adds up the example gradients once for the second
moment, then once more for each BLOCK_C contributors (from L1), so that memory is read and written once per state: 4 (2
C + 2) bytes read and as many written per parameter, and 4 E read, with C contributors and E examples in fp32. The
gradients of contributors are never stored.
"""

import triton
import triton.language as tl
from torch import Tensor

from kernels.reference import AdamW

BLOCK = 64  # parameters per program; wider blocks leave the second pass over the examples outside L1
MAX_BLOCK_C = 16  # contributors at a time: enough in flight for the memory's latency


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
    assert all(t.is_contiguous() for t in (parameter, trace, first_moment, second_moment, gradient, owner))
    contributors, size = len(trace), parameter.numel()
    _step[(triton.cdiv(size, BLOCK),)](
        parameter, trace, first_moment, second_moment, gradient, owner, size, contributors, len(owner),
        float(adamw.decay), -adamw.lr / adamw.correction1, float(adamw.beta1), 1.0 - adamw.beta1,
        float(adamw.beta2), 1.0 - adamw.beta2, float(adamw.correction2), float(adamw.eps),
        BLOCK=BLOCK, BLOCK_C=min(MAX_BLOCK_C, triton.next_power_of_2(contributors)), num_warps=4,
    )  # fmt: skip


@triton.jit
def _step(
    parameter, trace, first_moment, second_moment, gradient, owner, size, contributors, examples,
    decay, rate, beta1, rest1, beta2, rest2, correction2, eps, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program p, BLOCK parameters, rest = 1 - beta (in fp32 1 - 0.999 would be off by 3e-5); an example whose owner is
    -1 is never read.

    v <- beta2 v + (1 - beta2) (sum_e g_e)^2        m_c <- beta1 m_c + (1 - beta1) sum_{e of c} g_e
    d_c = rate m_c / (sqrt(v / correction2) + eps)
    trace_c <- decay trace_c + d_c                  parameter <- decay parameter + sum_c d_c
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    everywhere = tl.zeros([BLOCK], tl.int32)
    total = tl.zeros([BLOCK], tl.float32)
    row = gradient + at
    for e in range(examples):
        is_owned = tl.load(owner + everywhere + e) >= 0
        total += tl.load(row, inside & is_owned, other=0.0).to(tl.float32)
        row += size
    v = beta2 * tl.load(second_moment + at, inside, other=0.0) + rest2 * total * total
    scale = rate / (tl.sqrt(v / correction2) + eps)
    tl.store(second_moment + at, v, inside)
    moved = tl.zeros([BLOCK], tl.float32)
    for first in range(0, contributors, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        is_state = (c < contributors)[:, None] & inside[None, :]
        here = c.to(tl.int64)[:, None] * size + at[None, :]
        m = tl.load(first_moment + here, is_state, other=0.0)
        was = tl.load(trace + here, is_state, other=0.0)
        g = tl.zeros([BLOCK_C, BLOCK], tl.float32)
        row = gradient + at
        for e in range(examples):
            of = tl.load(owner + everywhere + e)
            own = tl.load(row, inside & (of >= 0), other=0.0).to(tl.float32)
            g += tl.where(c[:, None] == of[None, :], own[None, :], 0.0)
            row += size
        m = beta1 * m + rest1 * g
        d = scale[None, :] * m
        tl.store(first_moment + here, m, is_state)
        tl.store(trace + here, decay * was + d, is_state)
        moved += tl.sum(d, 0)
    tl.store(parameter + at, decay * tl.load(parameter + at, inside, other=0.0) + moved, inside)
