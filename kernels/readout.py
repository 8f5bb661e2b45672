"""Triton kernels of `reference.readout`: softmax statistics, the words that count, and a weighted sum of their rows.

Memory plan. The vocabulary is cut into chunks that do not depend on the batch. The logits [n, V] are read twice, one
program per token and chunk, all of a chunk in flight at once: for its statistics, and for its words above RARE. A chunk
with share s of the mass has fewer than s / RARE of those, so the chunks' masses tell where each may write: the words of
a token lie in 1 / RARE places and a few. Then each token reads the unembedding's rows of its own words, BLOCK_D
columns per program. Three launches, nothing depends on values on the host, and every sum is taken in an order that the
batch does not change.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.reference import RARE

CHUNK = 4096  # vocabulary entries per program
WORDS = 64  # rows of the unembedding read at once
MAX_BLOCK_D = 128  # columns of the unembedding per program


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
    chunk = min(CHUNK, max(16, triton.next_power_of_2(V)))
    chunks = triton.cdiv(V, chunk)
    block_c = max(16, triton.next_power_of_2(chunks))
    block_d = min(MAX_BLOCK_D, max(16, triton.next_power_of_2(D)))
    capacity = int(1 / RARE) + chunks + 1

    def scratch(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    statistics, slope = scratch(3, n, chunks), scratch(n)
    words, weights = scratch(n, capacity, dtype=torch.int32), scratch(n, capacity)
    found = scratch(2, n, chunks, dtype=torch.int32)
    u, margin = scratch(n, D), scratch(n)
    _statistics[(chunks, n)](
        logits, emitted, statistics, logits.stride(0), n, V, chunks, CHUNK=chunk, num_warps=8
    )  # fmt: skip
    _select[(chunks, n)](
        logits, emitted, statistics, slope, margin, words, weights, found,
        logits.stride(0), n, V, chunks, capacity, RARE=RARE, CHUNK=chunk, BLOCK_C=block_c, num_warps=8,
    )  # fmt: skip
    _combine[(n, triton.cdiv(D, block_d))](
        emitted, normed, unembedding, mean_row, g, slope, words, weights, found, u,
        normed.stride(0), unembedding.stride(0), n, D, chunks, capacity,
        WORDS=WORDS, BLOCK_C=block_c, BLOCK_D=block_d, num_warps=4,
    )  # fmt: skip
    return u, margin


@triton.jit
def _statistics(logits, emitted, statistics, stride, n, V, chunks, CHUNK: tl.constexpr):
    """Program (p, i), v in chunk p of the vocabulary, v != y_i:

    statistics[0, i, p] = top = max_v z_v
    statistics[1, i, p] = sum_v exp(z_v - top)
    statistics[2, i, p] = sum_v exp(z_v - top) z_v
    """
    p = tl.program_id(0)
    i = tl.program_id(1).to(tl.int64)
    word = p * CHUNK + tl.arange(0, CHUNK)
    is_other = (word < V) & (word != tl.load(emitted + i))
    z = tl.load(logits + i * stride + word, is_other, other=float("-inf")).to(tl.float32)
    top = tl.max(z, 0)
    weight = tl.exp(z - tl.where(top == float("-inf"), 0.0, top))  # a chunk without mass: any finite number will do
    here = statistics + i * chunks + p
    tl.store(here, top)
    tl.store(here + n * chunks, tl.sum(weight, 0))
    tl.store(here + 2 * n * chunks, tl.sum(weight * tl.where(weight > 0.0, z, 0.0), 0))


@triton.jit
def _select(
    logits, emitted, statistics, slope, margin, words, weights, found,
    stride, n, V, chunks, capacity, RARE: tl.constexpr, CHUNK: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (p, i): the words of chunk p with w > 0, in the vocabulary's order, from place found[0, i, p] on, and how
    many, found[1, i, p]; with every token's margin and slope[i] = z_y - q.z besides."""
    p = tl.program_id(0)
    i = tl.program_id(1).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    here = statistics + i * chunks + c
    tops = tl.load(here, c < chunks, other=float("-inf"))
    top = tl.max(tops, 0)
    origin = tl.where(top == float("-inf"), 0.0, top)
    scale = tl.exp(tops - origin)
    masses = scale * tl.load(here + n * chunks, c < chunks, other=0.0)
    mass = tl.sum(masses, 0)
    y = tl.load(emitted + i)
    row = logits + i * stride
    if p == 0:
        moment = tl.sum(scale * tl.load(here + 2 * n * chunks, c < chunks, other=0.0), 0)
        z_y = tl.load(row + y).to(tl.float32)
        tl.store(slope + i, z_y - moment / mass)
        tl.store(margin + i, z_y - top - tl.log(mass))
    room = (masses / (mass * RARE)).to(tl.int32) + 1  # one more than can be, for rounding
    at = tl.sum(tl.where(c < p, room, 0), 0)
    word = p * CHUNK + tl.arange(0, CHUNK)
    z = tl.load(row + word, (word < V) & (word != y), other=float("-inf")).to(tl.float32)
    q = tl.exp(z - origin) / mass
    is_kept = (q > RARE).to(tl.int32)
    count = tl.sum(is_kept, 0)
    if count > 0:
        place = i * capacity + at + tl.cumsum(is_kept, 0) - 1
        tl.store(words + place, word, is_kept > 0)
        tl.store(weights + place, q * tl.minimum(q / RARE - 1.0, 1.0), is_kept > 0)
    tl.store(found + i * chunks + p, at)
    tl.store(found + (n + i) * chunks + p, count)


@triton.jit
def _combine(
    emitted, normed, unembedding, mean_row, g, slope, words, weights, found, u,
    stride_normed, stride_row, n, D, chunks, capacity,
    WORDS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Program (i, b), columns d of block b:

    u[i, d] = g_d (W[y, d] - sum_v w_v W[v, d] - (1 - sum_v w_v) mean_row_d) - slope[i] / D n[i, d] / g_d
    """
    i = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    is_dim = d < D
    c = tl.arange(0, BLOCK_C)
    at = tl.load(found + i * chunks + c, c < chunks, other=0)
    count = tl.load(found + (n + i) * chunks + c, c < chunks, other=0)
    end = tl.cumsum(count, 0)
    first = end - count
    total = tl.sum(count, 0)
    expected = tl.zeros([BLOCK_D], tl.float32)
    mass = tl.zeros([], tl.float32)
    for f in range(0, total, WORDS):
        which = f + tl.arange(0, WORDS)
        is_word = which < total
        in_chunk = (first[None, :] <= which[:, None]) & (which[:, None] < end[None, :])
        place = i * capacity + which + tl.sum(tl.where(in_chunk, (at - first)[None, :], 0), 1)
        word = tl.load(words + place, is_word, other=0).to(tl.int64)
        w = tl.load(weights + place, is_word, other=0.0)
        rows = unembedding + word[:, None] * stride_row + d[None, :]
        tile = tl.load(rows, is_word[:, None] & is_dim[None, :], other=0.0).to(tl.float32)
        expected += tl.sum(w[:, None] * tile, 0)
        mass += tl.sum(w, 0)
    y = tl.load(emitted + i)
    scale = tl.load(g + d, is_dim, other=1.0).to(tl.float32)
    mean = tl.load(mean_row + d, is_dim, other=0.0).to(tl.float32)
    of_emitted = tl.load(unembedding + y * stride_row + d, is_dim, other=0.0).to(tl.float32)
    x = tl.load(normed + i * stride_normed + d, is_dim, other=0.0).to(tl.float32)
    of_norm = tl.load(slope + i) / D
    direction = scale * (of_emitted - expected - (1.0 - mass) * mean) - of_norm * x / scale
    tl.store(u + i * D + d, direction, is_dim)
