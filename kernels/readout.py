"""Triton kernel of `reference.readout`: one pass over the logits, split over the vocabulary, then a combine.

Memory plan. The logits [n, V] are read once, by BLOCK_N tokens x a share of the vocabulary per program; W_P [V, k] is
read once per BLOCK_N tokens, from L2 after the first. The same launch computes n P_over_g, on programs of its own that
share out D. Every program leaves partial results in fp32 scratch, which is below 7% of the logits at 256 tokens x 128k;
the second launch combines them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.machine import processors
from kernels.products import product

BLOCK_V = 64  # vocabulary entries, or dimensions of the residual, per step of a program
MAX_BLOCK_N = 32  # tokens per program; 64 takes 255 registers and spills on sm_80 with an fp32 W_P, 32 takes 128
MAX_BLOCK_K = 128  # columns of W_P per program; a wider W_P reads the logits again for each
DIMENSIONS = 512  # of the residual, per program


def readout(logits: Tensor, emitted: Tensor, normed: Tensor, W_P: Tensor, P_over_g: Tensor) -> tuple[Tensor, Tensor]:
    """u [n, k] and margin [n], fp32; see `reference.readout`. Only logits and normed may have a row stride."""
    assert logits.stride(1) == normed.stride(1) == 1
    assert emitted.is_contiguous()
    assert W_P.is_contiguous()
    assert P_over_g.is_contiguous()
    n, V = logits.shape
    D, k = P_over_g.shape
    block_n = min(MAX_BLOCK_N, max(16, triton.next_power_of_2(n)))
    block_k = min(MAX_BLOCK_K, max(16, triton.next_power_of_2(k)))
    tiles, wide = max(1, triton.cdiv(n, block_n)), triton.cdiv(k, block_k)
    shares = min(triton.cdiv(V, BLOCK_V), triton.cdiv(2 * processors(logits.device), tiles * wide))
    per_share = triton.cdiv(triton.cdiv(V, shares), BLOCK_V) * BLOCK_V
    shares = triton.cdiv(V, per_share)
    shares_d = triton.cdiv(D, DIMENSIONS)

    def scratch(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=logits.device)

    statistics = scratch(3, shares, n)
    values = scratch(shares, n, k)
    projections = scratch(shares_d, n, k)
    u, margin = scratch(n, k), scratch(n)
    _partials[(shares + shares_d, tiles, wide)](
        logits, emitted, normed, W_P, P_over_g, statistics, values, projections,
        logits.stride(0), normed.stride(0), n, V, D, shares, per_share,
        k=k, BLOCK_N=block_n, BLOCK_V=BLOCK_V, BLOCK_K=block_k, DIMENSIONS=DIMENSIONS,
        num_warps=block_n // 4, num_stages=3,
    )  # fmt: skip
    _combine[(n, wide)](
        logits, emitted, W_P, statistics, values, projections, u, margin,
        logits.stride(0), n, D, shares, shares_d,
        k=k, BLOCK_S=32, BLOCK_K=block_k, num_warps=4,
    )  # fmt: skip
    return u, margin


@triton.jit
def _partials(
    logits, emitted, normed, W_P, P_over_g, statistics, values, projections,
    stride_logits, stride_normed, n, V, D, shares, per_share,
    k: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_K: tl.constexpr, DIMENSIONS: tl.constexpr,
):  # fmt: skip
    """Program (p, t, w), tokens i of tile t, columns of tile w: for p < shares the softmax partials of share p of the
    vocabulary, else one of n P_over_g.

    statistics[0, p, i] = top = max_v z_v                    over v in share p, v != y_i
    statistics[1, p, i] = sum_v exp(z_v - top)
    statistics[2, p, i] = sum_v exp(z_v - top) z_v
    values[p, i] = sum_v exp(z_v - top) W_P[v]
    projections[p - shares, i] = sum_d n[i, d] P_over_g[d]   over d in share p - shares
    """
    p = tl.program_id(0)
    rows = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    is_token = rows < n
    is_column = columns < k
    is_output = is_token[:, None] & is_column[None, :]
    at = rows[:, None] * k + columns[None, :]
    if p < shares:
        y = tl.load(emitted + rows, is_token, other=0)
        top, mass, moment, value = _softmax_share(
            logits + rows * stride_logits, is_token, y, W_P, columns, is_column,
            p * per_share, min(V, (p + 1) * per_share), k, BLOCK_N, BLOCK_V, BLOCK_K,
        )  # fmt: skip
        here = statistics + p * n + rows
        tl.store(here, top, is_token)
        tl.store(here + shares * n, mass, is_token)
        tl.store(here + 2 * shares * n, moment, is_token)
        tl.store(values + p.to(tl.int64) * n * k + at, value, is_output)
    else:
        projection = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
        first = (p - shares) * DIMENSIONS
        for d in range(first, min(D, first + DIMENSIONS), BLOCK_V):
            dims = d + tl.arange(0, BLOCK_V)
            is_dim = dims < D
            x = tl.load(normed + rows[:, None] * stride_normed + dims[None, :], is_token[:, None] & is_dim, other=0.0)
            P = tl.load(P_over_g + dims[:, None] * k + columns[None, :], is_dim[:, None] & is_column, other=0.0)
            projection += product(x.to(tl.float32), P)
        tl.store(projections + (p - shares).to(tl.int64) * n * k + at, projection, is_output)


@triton.jit
def _softmax_share(
    row, is_token, y, W_P, columns, is_column, first, end,
    k: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Online softmax with values W_P[v] over v in [first, end), v != y: top, mass, moment [N], value [N, K]."""
    top = tl.full([BLOCK_N], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_N], tl.float32)
    moment = tl.zeros([BLOCK_N], tl.float32)
    value = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for v in range(first, end, BLOCK_V):
        words = v + tl.arange(0, BLOCK_V)
        is_word = words < end
        z = tl.load(row[:, None] + words[None, :], is_token[:, None] & is_word[None, :], other=float("-inf"))
        z = tl.where(words[None, :] == y[:, None], float("-inf"), z.to(tl.float32))
        w = tl.load(W_P + words.to(tl.int64)[:, None] * k + columns[None, :], is_word[:, None] & is_column, other=0.0)
        raised = tl.maximum(top, tl.max(z, 1))
        origin = tl.where(raised == float("-inf"), 0.0, raised)  # nothing seen yet: any finite number will do
        kept = tl.exp(top - origin)
        weight = tl.exp(z - origin[:, None])
        mass = mass * kept + tl.sum(weight, 1)
        moment = moment * kept + tl.sum(weight * tl.where(weight > 0.0, z, 0.0), 1)
        value = value * kept[:, None] + product(weight, w)
        top = raised
    return top, mass, moment, value


@triton.jit
def _combine(
    logits, emitted, W_P, statistics, values, projections, u, margin,
    stride_logits, n, D, shares, shares_d,
    k: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Program (i, w), columns of tile w, with weight_p = exp(top_p - max top): mass, moment and value are the weighted
    sums over the shares p, then

    u[i] = W_P[y] - value / mass - (z_y - moment / mass) / D * sum_p projections[p, i]
    margin[i] = z_y - max top - log(mass)
    """
    i = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    is_column = columns < k
    top = tl.full([], float("-inf"), tl.float32)
    mass = tl.zeros([], tl.float32)
    moment = tl.zeros([], tl.float32)
    value = tl.zeros([BLOCK_K], tl.float32)
    for first in range(0, shares, BLOCK_S):
        p = first + tl.arange(0, BLOCK_S)
        is_share = p < shares
        here = statistics + p * n + i
        tops = tl.load(here, is_share, other=float("-inf"))
        raised = tl.maximum(top, tl.max(tops, 0))
        origin = tl.where(raised == float("-inf"), 0.0, raised)
        kept = tl.exp(top - origin)
        weight = tl.exp(tops - origin)
        tile = tl.load(values + (p * n + i)[:, None] * k + columns[None, :], is_share[:, None] & is_column, other=0.0)
        mass = mass * kept + tl.sum(weight * tl.load(here + shares * n, is_share, other=0.0), 0)
        moment = moment * kept + tl.sum(weight * tl.load(here + 2 * shares * n, is_share, other=0.0), 0)
        value = value * kept + tl.sum(weight[:, None] * tile, 0)
        top = raised
    projection = tl.zeros([BLOCK_K], tl.float32)
    for p in range(shares_d):
        projection += tl.load(projections + (p * n + i) * k + columns, is_column, other=0.0)
    y = tl.load(emitted + i)
    z_y = tl.load(logits + i * stride_logits + y).to(tl.float32)
    of_emitted = tl.load(W_P + y * k + columns, is_column, other=0.0).to(tl.float32)
    direction = of_emitted - value / mass - (z_y - moment / mass) / D * projection
    tl.store(u + i * k + columns, direction, is_column)
    tl.store(margin + i, z_y - top - tl.log(mass))
