"""Triton kernels of `reference.attribution_scores`: tokens grouped by adapter, each head streamed once per step.

Memory plan. A tile is at most BLOCK_N tokens of one slot; its u stays in registers while the head streams past, tap by
tap, as tiles [k, (c, b)]: one tensor-core product gives sum_a u[a] K[c,l,a,b], which is weighted by h[l,b] and added up
in registers over the taps; the sum over b comes last. Three launches:

    _plan      the tokens in the order of their slots, cut into tiles
    _contract  a tile x some contributors x some taps: reads that part of the head (tiles of one slot meet in L2)
    _gather    adds a token's partial scores, always in the same order; writes zeros for tokens without a head

Nothing depends on values on the host, so the three can be captured in a CUDA graph. A token's score does not depend on
its batch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.products import product

BLOCK_N = 16  # tokens per tile, the least a tensor core takes
TAPS = 8  # taps per program
MAX_BLOCK_K = 64  # rows of u per product; a wider u passes over the taps again for each
COLUMN_BYTES = 256  # (contributor, rank) pairs per program: 128 in bf16; 128 in fp32 would spill
RANKED = 64  # tokens placed by one program of _plan
SEEN = 32  # tokens it compares them with at a time


def attribution_scores(u: Tensor, h: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m], fp32; see `reference.attribution_scores`. u and h may be strided except in their last dimension; K
    is contiguous.

    Reads of K are widest where r is a multiple of 8 (bf16) or 4 (fp32).
    """
    assert u.stride(1) == h.stride(2) == 1
    assert K.is_contiguous()
    assert slot.is_contiguous()
    n, taps, r = h.shape
    slots, m, _, k, _ = K.shape
    tiles = min(n, slots) + n // BLOCK_N
    shares = triton.cdiv(taps, TAPS)
    block_r = triton.next_power_of_2(r)
    block_c = max(1, COLUMN_BYTES // K.element_size() // block_r)

    def integers(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int32, device=u.device)

    order, tile_slot, tile_first, tile_end = integers(n), integers(tiles), integers(tiles), integers(tiles)
    partial = torch.empty(shares, n, m, dtype=torch.float32, device=u.device)
    scores = torch.empty(n, m, dtype=torch.float32, device=u.device)
    _plan[(triton.cdiv(n, RANKED),)](
        slot, order, tile_slot, tile_first, tile_end, n, slots, tiles,
        BLOCK_N=BLOCK_N, BLOCK_S=max(16, triton.next_power_of_2(slots)), RANKED=RANKED, SEEN=SEEN, num_warps=4,
    )  # fmt: skip
    _contract[(shares, triton.cdiv(m, block_c), tiles)](
        u, h, K, order, tile_slot, tile_first, tile_end, partial,
        u.stride(0), h.stride(0), h.stride(1), n, m, taps,
        k=k, r=r, BLOCK_N=BLOCK_N, BLOCK_C=block_c, BLOCK_R=block_r, TAPS=TAPS,
        BLOCK_K=min(MAX_BLOCK_K, max(16, triton.next_power_of_2(k))), num_warps=4, num_stages=3,
    )  # fmt: skip
    _gather[(n,)](slot, partial, scores, n, m, shares, BLOCK_M=max(16, triton.next_power_of_2(m)), num_warps=1)
    return scores


def head_products(x: Tensor, W: Tensor, slot: Tensor) -> Tensor:
    """y [n, b], fp32; see `reference.head_products`. Scores of a head whose u is 1 and whose taps are parts of x."""
    n, a = x.shape
    r = min(a & -a, 8)  # the largest power of two that divides a
    one = torch.ones(n, 1, dtype=torch.float32, device=x.device)
    return attribution_scores(one, x.unflatten(1, (a // r, r)), W.view(*W.shape[:2], a // r, 1, r), slot)


@triton.jit
def _plan(
    slot, order, tile_slot, tile_first, tile_end, n, slots, tiles,
    BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, RANKED: tl.constexpr, SEEN: tl.constexpr,
):  # fmt: skip
    """Stable counting sort of n slots; program p places its RANKED tokens, program 0 cuts the tiles as well.

    order[rank of i] = i, tokens without head first. Tile t is order[tile_first[t] : min(tile_first[t] + BLOCK_N,
    tile_end[t])], all of slot tile_slot[t], which is -1 for a tile that was not needed.
    """
    p = tl.program_id(0)
    i = p * RANKED + tl.arange(0, RANKED)
    mine = tl.load(slot + i, i < n, other=-1)
    s = tl.arange(0, BLOCK_S)
    rank = tl.zeros([RANKED], tl.int32)
    below = tl.zeros([BLOCK_S], tl.int32)  # tokens of a lower slot
    count = tl.zeros([BLOCK_S], tl.int32)  # tokens of this slot
    for first in range(0, n, SEEN):
        j = first + tl.arange(0, SEEN)
        other = tl.load(slot + j, j < n, other=slots)
        before = (other[None, :] < mine[:, None]) | ((other[None, :] == mine[:, None]) & (j[None, :] < i[:, None]))
        rank += tl.sum(before.to(tl.int32), 1)
        if p == 0:
            below += tl.sum((other[None, :] < s[:, None]).to(tl.int32), 1)
            count += tl.sum((other[None, :] == s[:, None]).to(tl.int32), 1)
    tl.store(order + rank, i, i < n)
    if p == 0:
        needed = tl.where(s < slots, (count + BLOCK_N - 1) // BLOCK_N, 0)
        at = tl.cumsum(needed, 0) - needed
        for part in range(tl.max(needed, 0)):
            is_tile = part < needed
            tl.store(tile_slot + at + part, s, is_tile)
            tl.store(tile_first + at + part, below + part * BLOCK_N, is_tile)
            tl.store(tile_end + at + part, below + count, is_tile)
        used = tl.sum(needed, 0)
        for first in range(0, tiles, RANKED):
            t = first + tl.arange(0, RANKED)
            tl.store(tile_slot + t, tl.full([RANKED], -1, tl.int32), (t >= used) & (t < tiles))


@triton.jit
def _contract(
    u, h, K, order, tile_slot, tile_first, tile_end, partial,
    stride_u, stride_h, stride_tap, n, m, taps,
    k: tl.constexpr, r: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr,
    TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Program (p, w, t), contributors c of block w, tokens i of tile t:

    partial[p, i, c] = sum_b sum_l h[i, l, b] (sum_a u[i, a] K[slot, c, l, a, b])        l in share p of the taps
    """
    p = tl.program_id(0)
    t = tl.program_id(2)
    s = tl.load(tile_slot + t).to(tl.int64)
    if s < 0:
        return
    ranks = tl.load(tile_first + t) + tl.arange(0, BLOCK_N)
    is_token = ranks < tl.load(tile_end + t)
    rows = tl.load(order + ranks, is_token, other=0).to(tl.int64)
    column = tl.arange(0, BLOCK_C * BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + column // BLOCK_R
    b = column % BLOCK_R
    is_column = (c < m) & (b < r)
    head = K + (s * m + c) * taps * (k * r) + b
    of_row = h + rows[:, None] * stride_h + b[None, :]
    sums = tl.zeros([BLOCK_N, BLOCK_C * BLOCK_R], tl.float32)
    for first in range(0, k, BLOCK_K):
        a = first + tl.arange(0, BLOCK_K)
        direction = tl.load(u + rows[:, None] * stride_u + a[None, :], is_token[:, None] & (a < k), other=0.0)
        for l in range(p * TAPS, min(taps, (p + 1) * TAPS)):
            at = (l * k + a) * r
            tile = tl.load(head[None, :] + at[:, None], (a < k)[:, None] & is_column, other=0.0)
            activation = tl.load(of_row + l * stride_tap, is_token[:, None] & is_column, other=0.0)
            sums += activation.to(tl.float32) * product(direction.to(tl.float32), tile)
    scores = tl.sum(tl.reshape(sums, [BLOCK_N, BLOCK_C, BLOCK_R]), 2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at_score = (p.to(tl.int64) * n + rows)[:, None] * m + c[None, :]
    tl.store(partial + at_score, scores, is_token[:, None] & (c < m))


@triton.jit
def _gather(slot, partial, scores, n, m, shares, BLOCK_M: tl.constexpr):
    """Program i: scores[i] = sum_p partial[p, i], 0 where slot[i] = -1."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_M)
    total = tl.zeros([BLOCK_M], tl.float32)
    if tl.load(slot + i) >= 0:
        for p in range(shares):
            total += tl.load(partial + (p * n + i) * m + c, c < m, other=0.0)
    tl.store(scores + i * m + c, total, c < m)
