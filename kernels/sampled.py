"""Triton kernel of `tap.Taps.sampled`: the activations of the sampled tokens, gathered from all taps in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_T = 32  # taps per program


def sampled(kept: Tensor, first: Tensor, tokens: Tensor, taps: Tensor, positions: Tensor, rank: int) -> Tensor:
    """h [n, taps, rank]; the arguments are those of a `Taps` and of its `sampled`."""
    assert kept.is_contiguous()
    assert first.is_contiguous()
    assert taps.is_contiguous()
    assert positions.is_contiguous()
    n, count = len(positions), len(taps)
    h = torch.empty(n, count, rank, dtype=kept.dtype, device=kept.device)
    _sampled[(n, triton.cdiv(count, BLOCK_T))](
        kept, first, tokens, taps, positions, h, count, rank, kept.shape[1], kept.shape[2],
        BLOCK_T=BLOCK_T, BLOCK_R=triton.next_power_of_2(rank), num_warps=1,
    )  # fmt: skip
    return h


@triton.jit
def _sampled(
    kept, first, tokens, taps, positions, h, count, rank, most, r, BLOCK_T: tl.constexpr, BLOCK_R: tl.constexpr
):
    """Program (i, p): h[i, t] for BLOCK_T taps t, whose row is slice t - f of the module with first row f."""
    i = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    tap = tl.load(taps + t, t < count, other=0)
    module = tl.load(first + tap)
    row = module * most + (tap - module) * tl.load(tokens) + tl.load(positions + i)
    b = tl.arange(0, BLOCK_R)
    is_element = (t < count)[:, None] & (b < rank)[None, :]
    value = tl.load(kept + row[:, None] * r + b[None, :], is_element)
    tl.store(h + (i * count + t)[:, None] * rank + b[None, :], value, is_element)
