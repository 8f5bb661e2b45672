"""Triton kernels of `reference.attribution_scores` and `reference.head_scores`: tokens grouped by adapter, each head
streamed once per step.

Memory plan. A tile is at most BLOCK_N tokens of one slot. For a head's products, x stays in a program while a share of
W streams past; for its contraction, u stays in registers while K streams past, tap by tap, as tiles [k, (c, b)]: one
tensor-core product gives sum_a u[a] K[c,l,a,b], which is weighted by h[l,b] and added up in registers over the taps;
the sum over b comes last. Launches:

    _plan      the tokens in the order of their slots, cut into tiles; zeros for tokens without a head
    _products  a tile x a share of a head's columns: part of P u or of H h
    _contract  a tile x some contributors x some taps: reads that part of K (tiles of one slot meet in L2), adding up
               the parts of u and h first
    _gather    adds a token's partial sums, always in the same order; left out where there is one part

Nothing depends on values on the host, so they can be captured in a CUDA graph. A token's score does not depend on its
batch.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.products import product

BLOCK_N = 16  # tokens per tile, the least a tensor core takes
TAPS = 16  # taps per program
MAX_BLOCK_K = 64  # rows of u per product; a wider u passes over the taps again for each
COLUMN_BYTES = 256  # (contributor, rank) pairs per program: 128 in bf16, 64 in fp32
SHARE = 512  # columns of W per program of _products
STEP = 64  # of which so many at a time
MAX_BLOCK_B = 64  # rows of W per product
RANKED = 64  # tokens placed by one program of _plan
SEEN = 64  # tokens it compares them with at a time


class Tiles(NamedTuple):
    """The plan of a step: `order` [n] tokens by slot; tile t is order[first[t] : min(first[t] + BLOCK_N, end[t])]."""

    order: Tensor
    slot: Tensor
    first: Tensor
    end: Tensor


def attribution_scores(u: Tensor, h: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m], fp32; see `reference.attribution_scores`. u and h may be strided except in their last dimension; K
    is contiguous.

    Reads of K are widest where r is a multiple of 8 (bf16) or 4 (fp32).
    """
    scores = _floats(u, len(u), K.shape[1])
    _contracted(u[None], h[None], K, slot, _planned(slot, len(K), scores), scores)
    return scores


def head_products(x: Tensor, W: Tensor, slot: Tensor) -> Tensor:
    """y [n, b], fp32; see `reference.head_products`. x may have a row stride; W is contiguous."""
    y = _floats(x, len(x), W.shape[1])
    (parts,) = _parts(_planned(slot, len(W), y), (x, W))
    _gathered(slot, parts, y)
    return y


def head_scores(u: Tensor, h: Tensor, P: Tensor, H: Tensor | None, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m], fp32; see `reference.head_scores`. u and h may have a row stride; P, H and K are contiguous."""
    if H is None:
        return attribution_scores(head_products(u, P, slot), h, K, slot)
    scores = _floats(u, len(u), K.shape[1])
    tiles = _planned(slot, len(K), scores)
    of_u, of_h = _parts(tiles, (u, P), (h.flatten(1), H))
    _contracted(of_u, of_h[:, :, None], K, slot, tiles, scores)
    return scores


def _planned(slot: Tensor, slots: int, out: Tensor) -> Tiles:
    """The tiles of a step; rows of `out` [n, m] without head are zeroed."""
    assert slot.is_contiguous()
    n, m = out.shape
    tiles = min(n, slots) + n // BLOCK_N

    def integers(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int32, device=slot.device)

    order, tile_slot, tile_first, tile_end = integers(n), integers(tiles), integers(tiles), integers(tiles)
    _plan[(triton.cdiv(n, RANKED),)](
        slot, order, tile_slot, tile_first, tile_end, out, n, m, slots, tiles,
        BLOCK_N=BLOCK_N, BLOCK_S=max(16, triton.next_power_of_2(slots)), RANKED=RANKED, SEEN=SEEN, num_warps=4,
    )  # fmt: skip
    return Tiles(order, tile_slot, tile_first, tile_end)


def _parts(tiles: Tiles, *factors: tuple[Tensor, Tensor]) -> list[Tensor]:
    """For one or two (x [n, a], W [slots, b, a]): parts [shares, n, b] whose sum over the shares is W x."""
    (x, W), (x2, W2) = factors[0], factors[-1]
    assert x.stride(1) == x2.stride(1) == 1
    assert W.is_contiguous()
    assert W2.is_contiguous()
    shares = [triton.cdiv(W.shape[2], SHARE) for _, W in factors]
    parts = [_floats(x, share, len(x), W.shape[1]) for share, (_, W) in zip(shares, factors, strict=True)]
    _products[(sum(shares), len(tiles.slot))](
        x, W, parts[0], x2, W2, parts[-1], *tiles, x.stride(0), x2.stride(0), len(x), shares[0],
        a=W.shape[2], b=W.shape[1], a2=W2.shape[2], b2=W2.shape[1], BLOCK_N=BLOCK_N, SHARE=SHARE, STEP=STEP,
        BLOCK_B=_block_b(W), BLOCK_B2=_block_b(W2), num_warps=4,
    )  # fmt: skip
    return parts


def _block_b(W: Tensor) -> int:
    return min(MAX_BLOCK_B, max(16, triton.next_power_of_2(W.shape[1])))


def _contracted(u: Tensor, h: Tensor, K: Tensor, slot: Tensor, tiles: Tiles, scores: Tensor) -> None:
    """Writes the scores of tokens with a head; u [parts, n, k] and h [parts, n, taps, r] count as their sums over the
    parts."""
    assert u.stride(2) == h.stride(3) == 1
    assert K.is_contiguous()
    _, n, taps, r = h.shape
    _, m, _, k, _ = K.shape
    shares = triton.cdiv(taps, TAPS)
    block_r = triton.next_power_of_2(r)
    block_c = max(1, COLUMN_BYTES // K.element_size() // block_r)
    partial = scores[None] if shares == 1 else _floats(scores, shares, n, m)
    _contract[(shares, triton.cdiv(m, block_c), len(tiles.slot))](
        u, h, K, *tiles, partial,
        u.stride(0), u.stride(1), h.stride(0), h.stride(1), h.stride(2), n, m, taps,
        k=k, r=r, U_PARTS=len(u), H_PARTS=len(h), BLOCK_N=BLOCK_N, BLOCK_C=block_c, BLOCK_R=block_r, TAPS=TAPS,
        BLOCK_K=min(MAX_BLOCK_K, max(16, triton.next_power_of_2(k))), num_warps=4, num_stages=3,
    )  # fmt: skip
    if shares > 1:
        _gathered(slot, partial, scores)


def _gathered(slot: Tensor, parts: Tensor, out: Tensor) -> None:
    """out [n, m] = the sum of parts [shares, n, m] for tokens with a head."""
    shares, n, m = parts.shape
    _gather[(n,)](slot, parts, out, n, m, shares, BLOCK_M=max(16, triton.next_power_of_2(m)), num_warps=1)


def _floats(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


@triton.jit
def _plan(
    slot, order, tile_slot, tile_first, tile_end, out, n, m, slots, tiles,
    BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, RANKED: tl.constexpr, SEEN: tl.constexpr,
):  # fmt: skip
    """Stable counting sort of n slots; program p places its RANKED tokens, program 0 cuts the tiles as well.

    order[rank of i] = i, tokens without head first. Tile t is order[tile_first[t] : min(tile_first[t] + BLOCK_N,
    tile_end[t])], all of slot tile_slot[t], which is -1 for a tile that was not needed. out[i] = 0 without head.
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
    is_headless = (i < n) & (mine < 0)
    if tl.max(is_headless.to(tl.int32), 0) > 0:
        for first in range(0, m, SEEN):
            c = first + tl.arange(0, SEEN)
            at = i.to(tl.int64)[:, None] * m + c[None, :]
            tl.store(out + at, tl.zeros([RANKED, SEEN], tl.float32), is_headless[:, None] & (c < m)[None, :])
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
def _products(
    x, W, parts, x2, W2, parts2, order, tile_slot, tile_first, tile_end, stride_x, stride_x2, n, shares,
    a: tl.constexpr, b: tl.constexpr, a2: tl.constexpr, b2: tl.constexpr,
    BLOCK_N: tl.constexpr, SHARE: tl.constexpr, STEP: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_B2: tl.constexpr,
):  # fmt: skip
    """Program (p, t), tokens i of tile t: parts[p, i] = W[slot] x[i] over share p of the columns, and from p = shares
    on the same of x2, W2 and parts2."""
    p = tl.program_id(0)
    t = tl.program_id(1)
    s = tl.load(tile_slot + t).to(tl.int64)
    if s < 0:
        return
    ranks = tl.load(tile_first + t) + tl.arange(0, BLOCK_N)
    is_token = ranks < tl.load(tile_end + t)
    rows = tl.load(order + ranks, is_token, other=0).to(tl.int64)
    if p < shares:
        _part(x, W, parts, rows, is_token, s, p, stride_x, n, a, b, BLOCK_N, SHARE, STEP, BLOCK_B)
    else:
        _part(x2, W2, parts2, rows, is_token, s, p - shares, stride_x2, n, a2, b2, BLOCK_N, SHARE, STEP, BLOCK_B2)


@triton.jit
def _part(
    x, W, parts, rows, is_token, s, p, stride, n, a: tl.constexpr, b: tl.constexpr,
    BLOCK_N: tl.constexpr, SHARE: tl.constexpr, STEP: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    """parts[p, i, j] = sum over columns v of share p of x[i, v] W[s, j, v]"""
    for first in range(0, b, BLOCK_B):
        j = first + tl.arange(0, BLOCK_B)
        sums = tl.zeros([BLOCK_N, BLOCK_B], tl.float32)
        for step in range(0, SHARE, STEP):
            v = p * SHARE + step + tl.arange(0, STEP)
            tile = tl.load(W + (s * b + j[None, :]) * a + v[:, None], (j < b)[None, :] & (v < a)[:, None], other=0.0)
            own = tl.load(x + rows[:, None] * stride + v[None, :], is_token[:, None] & (v < a)[None, :], other=0.0)
            sums += product(own.to(tl.float32), tile)
        at = (p.to(tl.int64) * n + rows)[:, None] * b + j[None, :]
        tl.store(parts + at, sums, is_token[:, None] & (j < b)[None, :])


@triton.jit
def _contract(
    u, h, K, order, tile_slot, tile_first, tile_end, partial,
    part_u, stride_u, part_h, stride_h, stride_tap, n, m, taps,
    k: tl.constexpr, r: tl.constexpr, U_PARTS: tl.constexpr, H_PARTS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr, TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
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
        is_element = is_token[:, None] & (a < k)
        direction = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
        for q in range(U_PARTS):
            at = rows[:, None] * stride_u + a[None, :]
            direction += tl.load(u + q * part_u + at, is_element, other=0.0).to(tl.float32)
        for l in range(p * TAPS, min(taps, (p + 1) * TAPS)):
            at = (l * k + a) * r
            tile = tl.load(head[None, :] + at[:, None], (a < k)[:, None] & is_column, other=0.0)
            activation = tl.zeros([BLOCK_N, BLOCK_C * BLOCK_R], tl.float32)
            for q in range(H_PARTS):
                here = of_row + q * part_h + l * stride_tap
                activation += tl.load(here, is_token[:, None] & is_column, other=0.0).to(tl.float32)
            sums += activation * product(direction, tile)
    scores = tl.sum(tl.reshape(sums, [BLOCK_N, BLOCK_C, BLOCK_R]), 2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at_score = (p.to(tl.int64) * n + rows)[:, None] * m + c[None, :]
    tl.store(partial + at_score, scores, is_token[:, None] & (c < m))


@triton.jit
def _gather(slot, partial, scores, n, m, shares, BLOCK_M: tl.constexpr):
    """Program i: scores[i] = sum_p partial[p, i] where slot[i] is a head."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_M)
    if tl.load(slot + i) >= 0:
        total = tl.zeros([BLOCK_M], tl.float32)
        for p in range(shares):
            total += tl.load(partial + (p * n + i) * m + c, c < m, other=0.0)
        tl.store(scores + i * m + c, total, c < m)
