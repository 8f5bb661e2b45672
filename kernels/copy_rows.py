"""Triton kernel of the tap's copy: one launch for all slices of a module, with a change of dtype."""

import triton
import triton.language as tl
from torch import Tensor

BLOCK_N = 32  # tokens per program


def copy_rows(source: Tensor, target: Tensor) -> None:
    """target[j, i, b] = source[j, i, b]; both [slices, tokens, r], the last stride 1. No other byte is written."""
    assert source.stride(2) == target.stride(2) == 1
    slices, tokens, r = source.shape
    _copy[(triton.cdiv(tokens, BLOCK_N), slices)](
        source, target, source.stride(0), source.stride(1), target.stride(0), target.stride(1), tokens, r,
        BLOCK_N=BLOCK_N, BLOCK_R=triton.next_power_of_2(r), num_warps=1,
    )  # fmt: skip


@triton.jit
def _copy(
    source, target, source_slice, source_row, target_slice, target_row, tokens, r,
    BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Program (p, j): BLOCK_N rows of slice j."""
    i = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.program_id(1).to(tl.int64)
    b = tl.arange(0, BLOCK_R)
    is_element = (i < tokens)[:, None] & (b < r)[None, :]
    value = tl.load(source + j * source_slice + i[:, None] * source_row + b[None, :], is_element)
    tl.store(target + j * target_slice + i[:, None] * target_row + b[None, :], value, is_element)
