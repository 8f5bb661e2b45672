"""Triton kernels of `reference.readout`: softmax statistics, the words that count, and a weighted sum of their rows.

Memory plan. The logits [n, V] are read twice: for the statistics, by BLOCK_N tokens x a share of the vocabulary per
program, and for the words above RARE, of which a share of the vocabulary keeps at most 1 / RARE in scratch. Then each
token reads the unembedding's rows of its own words, BLOCK_D columns per program. Three launches, nothing depends on
values on the host, and every sum is taken in an order that the batch does not change.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.machine import processors
from kernels.reference import RARE

BLOCK_V = 128  # vocabulary entries per step of a program
MAX_BLOCK_N = 32  # tokens per program of the statistics
SELECTED_V = 1024  # vocabulary entries per step when words are selected
SHARES = 8  # of the vocabulary, for the words selected of one token
WORDS = 16  # rows of the unembedding read at once
MAX_BLOCK_D = 512  # columns of the unembedding per program


def readout(
    logits: Tensor, emitted: Tensor, normed: Tensor, unembedding: Tensor, mean_row: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """u [n, D] and margin [n], fp32; see `reference.readout`. Logits, normed and unembedding may have a row stride."""
    assert logits.stride(1) == normed.stride(1) == unembedding.stride(1) == 1
    assert emitted.is_contiguous()
    assert mean_row.is_contiguous()
    assert g.is_contiguous()
    n, V = logits.shape
    D = normed.shape[1]
    block_n = min(MAX_BLOCK_N, max(16, triton.next_power_of_2(n)))
    tiles = max(1, triton.cdiv(n, block_n))
    per_share, shares = _shared(V, triton.cdiv(2 * processors(logits.device), tiles), BLOCK_V)
    per_selection, selections = _shared(V, SHARES, SELECTED_V)
    capacity = min(per_selection, int(1 / RARE))
    block_d = min(MAX_BLOCK_D, max(16, triton.next_power_of_2(D)))

    def scratch(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    statistics, slope = scratch(3, shares, n), scratch(n)
    words, counts = scratch(n, selections, capacity, dtype=torch.int32), scratch(n, selections, dtype=torch.int32)
    weights = scratch(n, selections, capacity)
    u, margin = scratch(n, D), scratch(n)
    _statistics[(shares, tiles)](
        logits, emitted, statistics, logits.stride(0), n, V, shares, per_share,
        BLOCK_N=block_n, BLOCK_V=BLOCK_V, num_warps=4, num_stages=3,
    )  # fmt: skip
    _select[(selections, n)](
        logits, emitted, statistics, slope, margin, words, weights, counts,
        logits.stride(0), n, V, shares, selections, per_selection, capacity,
        RARE=RARE, BLOCK_S=32, BLOCK_V=SELECTED_V, num_warps=4,
    )  # fmt: skip
    _combine[(n, triton.cdiv(D, block_d))](
        emitted, normed, unembedding, mean_row, g, slope, words, weights, counts, u,
        normed.stride(0), unembedding.stride(0), n, D, selections, capacity,
        WORDS=WORDS, BLOCK_D=block_d, num_warps=4,
    )  # fmt: skip
    return u, margin


def _shared(V: int, shares: int, block: int) -> tuple[int, int]:
    """Vocabulary entries of a share, a multiple of `block`, and how many shares that makes: at most `shares`."""
    per_share = triton.cdiv(triton.cdiv(V, shares), block) * block
    return per_share, triton.cdiv(V, per_share)


@triton.jit
def _statistics(
    logits, emitted, statistics, stride, n, V, shares, per_share, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr
):  # fmt: skip
    """Program (p, t), tokens i of tile t, v in share p of the vocabulary, v != y_i:

    statistics[0, p, i] = top = max_v z_v
    statistics[1, p, i] = sum_v exp(z_v - top)
    statistics[2, p, i] = sum_v exp(z_v - top) z_v
    """
    p = tl.program_id(0)
    rows = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_token = rows < n
    y = tl.load(emitted + rows, is_token, other=0)
    row = logits + rows * stride
    top = tl.full([BLOCK_N], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_N], tl.float32)
    moment = tl.zeros([BLOCK_N], tl.float32)
    end = min(V, (p + 1) * per_share)
    for v in range(p * per_share, end, BLOCK_V):
        words = v + tl.arange(0, BLOCK_V)
        is_word = words < end
        z = tl.load(row[:, None] + words[None, :], is_token[:, None] & is_word[None, :], other=float("-inf"))
        z = tl.where(words[None, :] == y[:, None], float("-inf"), z.to(tl.float32))
        raised = tl.maximum(top, tl.max(z, 1))
        origin = tl.where(raised == float("-inf"), 0.0, raised)  # nothing seen yet: any finite number will do
        kept = tl.exp(top - origin)
        weight = tl.exp(z - origin[:, None])
        mass = mass * kept + tl.sum(weight, 1)
        moment = moment * kept + tl.sum(weight * tl.where(weight > 0.0, z, 0.0), 1)
        top = raised
    here = statistics + p * n + rows
    tl.store(here, top, is_token)
    tl.store(here + shares * n, mass, is_token)
    tl.store(here + 2 * shares * n, moment, is_token)


@triton.jit
def _select(
    logits, emitted, statistics, slope, margin, words, weights, counts,
    stride, n, V, shares, selections, per_selection, capacity,
    RARE: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Program (p, i): the words of selection p with w > 0, in the vocabulary's order, and how many; with every token's
    margin and slope[i] = z_y - q.z besides."""
    p = tl.program_id(0)
    i = tl.program_id(1).to(tl.int64)
    top = tl.full([], float("-inf"), tl.float32)
    mass = tl.zeros([], tl.float32)
    moment = tl.zeros([], tl.float32)
    for first in range(0, shares, BLOCK_S):
        share = first + tl.arange(0, BLOCK_S)
        is_share = share < shares
        here = statistics + share * n + i
        tops = tl.load(here, is_share, other=float("-inf"))
        raised = tl.maximum(top, tl.max(tops, 0))
        origin = tl.where(raised == float("-inf"), 0.0, raised)
        kept = tl.exp(top - origin)
        weight = tl.exp(tops - origin)
        mass = mass * kept + tl.sum(weight * tl.load(here + shares * n, is_share, other=0.0), 0)
        moment = moment * kept + tl.sum(weight * tl.load(here + 2 * shares * n, is_share, other=0.0), 0)
        top = raised
    y = tl.load(emitted + i)
    row = logits + i * stride
    if p == 0:
        z_y = tl.load(row + y).to(tl.float32)
        tl.store(slope + i, z_y - moment / mass)
        tl.store(margin + i, z_y - top - tl.log(mass))
    at = (i * selections + p) * capacity
    count = tl.zeros([], tl.int32)
    end = min(V, (p + 1) * per_selection)
    for v in range(p * per_selection, end, BLOCK_V):
        word = v + tl.arange(0, BLOCK_V)
        z = tl.load(row + word, (word < end) & (word != y), other=float("-inf")).to(tl.float32)
        q = tl.exp(z - top) / mass
        is_kept = q > RARE
        place = count + tl.cumsum(is_kept.to(tl.int32), 0) - 1
        tl.store(words + at + place, word, is_kept & (place < capacity))
        tl.store(weights + at + place, q * tl.minimum(q / RARE - 1.0, 1.0), is_kept & (place < capacity))
        count += tl.sum(is_kept.to(tl.int32), 0)
    tl.store(counts + i * selections + p, tl.minimum(count, capacity))


@triton.jit
def _combine(
    emitted, normed, unembedding, mean_row, g, slope, words, weights, counts, u,
    stride_normed, stride_row, n, D, selections, capacity,
    WORDS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Program (i, b), columns d of block b:

    u[i, d] = g_d (W[y, d] - sum_v w_v W[v, d] - (1 - sum_v w_v) mean_row_d) - slope[i] / D n[i, d] / g_d
    """
    i = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    is_dim = d < D
    expected = tl.zeros([BLOCK_D], tl.float32)
    total = tl.zeros([], tl.float32)
    for p in range(selections):
        count = tl.load(counts + i * selections + p)
        at = (i * selections + p) * capacity
        for first in range(0, count, WORDS):
            place = first + tl.arange(0, WORDS)
            is_word = place < count
            word = tl.load(words + at + place, is_word, other=0).to(tl.int64)
            w = tl.load(weights + at + place, is_word, other=0.0)
            rows = unembedding + word[:, None] * stride_row + d[None, :]
            tile = tl.load(rows, is_word[:, None] & is_dim[None, :], other=0.0).to(tl.float32)
            expected += tl.sum(w[:, None] * tile, 0)
            total += tl.sum(w, 0)
    y = tl.load(emitted + i)
    scale = tl.load(g + d, is_dim, other=1.0).to(tl.float32)
    mean = tl.load(mean_row + d, is_dim, other=0.0).to(tl.float32)
    of_emitted = tl.load(unembedding + y * stride_row + d, is_dim, other=0.0).to(tl.float32)
    x = tl.load(normed + i * stride_normed + d, is_dim, other=0.0).to(tl.float32)
    of_norm = tl.load(slope + i) / D
    direction = scale * (of_emitted - expected - (1.0 - total) * mean) - of_norm * x / scale
    tl.store(u + i * D + d, direction, is_dim)
