"""The operations on a CPU: batched torch, no loop over tokens. Specification: `kernels.reference`."""

import torch
from torch import Tensor

from kernels.reference import RARE, AdamW


def readout(
    logits: Tensor, emitted: Tensor, normed: Tensor, unembedding: Tensor, mean_row: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """u [n, D] and margin [n]; see `reference.readout`.

    torch's softmax makes one pass where exp, sum and divide make three, and log sum exp of the others is max(z) -
    log(max(q)).
    """
    n, D = normed.shape
    y = emitted[:, None]
    z = logits.float()
    z_y = z.gather(1, y)
    others = z.scatter(1, y, -torch.inf)
    q = others.softmax(1)
    q_z = torch.linalg.vecdot(q, z)[:, None]
    if not q_z.isfinite().all():  # an entry without mass had logit -inf, and 0 x -inf is not 0
        q_z = (q * torch.where(q > 0, z, 0)).sum(1, keepdim=True)
    row, word = (q > RARE).nonzero(as_tuple=True)
    w = q[row, word]
    w *= (w / RARE - 1).clamp_max_(1)
    first = torch.searchsorted(row, torch.arange(n))
    table, word = (unembedding, word) if unembedding.dtype == torch.float32 else _rows(unembedding, word)
    expected = torch.nn.functional.embedding_bag(word, table, first, mode="sum", per_sample_weights=w)
    rest = 1 - torch.zeros(n).index_add_(0, row, w)
    u = unembedding[emitted].float().sub_(expected).addr_(rest, mean_row.float(), alpha=-1).mul_(g.float())
    u.sub_((z_y - q_z) / D * (normed.float() / g.float()))
    return u, (z_y - others.amax(1, keepdim=True) + q.amax(1, keepdim=True).log())[:, 0]


def _rows(table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a table in fp32, and where each of them is now: bf16 sums would keep 8 bits."""
    return table[rows].float(), torch.arange(len(rows))


def head_products(x: Tensor, W: Tensor, slot: Tensor) -> Tensor:
    """y [n, b]; see `reference.head_products`. One matrix product per active adapter."""
    y = x.new_zeros(len(x), W.shape[1], dtype=torch.float32)
    slot, order = slot.sort(stable=True)
    active, counts = slot.unique_consecutive(return_counts=True)
    rows = order[slot >= 0]
    x = x[rows].float()
    end = 0
    products = []
    for s, count in zip(active.tolist(), counts.tolist(), strict=True):
        if s >= 0:
            start, end = end, end + count
            products.append(x[start:end] @ W[s].float().T)
    if products:
        y[rows] = torch.cat(products)
    return y


def attribution_scores(u: Tensor, h: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m]; see `reference.attribution_scores`: a head's product with the features u (x) h."""
    slots, m = K.shape[:2]
    features = (h.float()[:, :, None, :] * u.float()[:, None, :, None]).flatten(1)
    return head_products(features, K.reshape(slots, m, -1), slot)


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
    kept = owner >= 0
    g = torch.zeros_like(trace).index_add_(0, owner[kept], gradient[kept].to(trace.dtype))
    first_moment.lerp_(g, 1 - adamw.beta1)
    second_moment.mul_(adamw.beta2).addcmul_(total := g.sum(0), total, value=1 - adamw.beta2)
    scale = (second_moment / adamw.correction2).sqrt_().add_(adamw.eps)
    rate = -adamw.lr / adamw.correction1
    trace.mul_(adamw.decay).addcdiv_(first_moment, scale, value=rate)
    parameter.mul_(adamw.decay).addcdiv_(first_moment.sum(0), scale, value=rate)
