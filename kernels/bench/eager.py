"""The operations as one would write them in eager torch, without a wait for the host, so that a CUDA graph can hold
them: what the kernels are measured against, alone and under torch.compile."""

import torch
from torch import Tensor

from kernels.reference import RARE, AdamW


def readout(
    logits: Tensor, emitted: Tensor, normed: Tensor, unembedding: Tensor, mean_row: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """`reference.readout` for finite logits; the product in the dtype of the unembedding."""
    y = emitted[:, None]
    z_y = logits.gather(1, y)
    others = logits.scatter(1, y, -torch.inf)
    q = others.softmax(1)
    q_z = (q * logits).sum(1, keepdim=True)
    slope = (z_y - q_z) / normed.shape[1]
    w = q * (q / RARE - 1).clamp(0, 1)
    expected = w.to(unembedding.dtype) @ unembedding + (1 - w.sum(1, keepdim=True)) * mean_row
    u = g * (unembedding[emitted] - expected) - slope * (normed / g)
    return u.float(), z_y[:, 0] - others.logsumexp(1)


def head_products(x: Tensor, W: Tensor, slot: Tensor) -> Tensor:
    """`reference.head_products` where every token has a head: the heads gathered, one batched product."""
    return torch.bmm(W[slot], x.to(W.dtype)[:, :, None])[:, :, 0].float()


def attribution_scores(u: Tensor, h: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """`reference.attribution_scores` where every token has a head: the heads gathered, one batched product."""
    features = (h[:, :, None, :] * u[:, None, :, None]).flatten(1).to(K.dtype)
    return torch.bmm(K.flatten(2)[slot], features[:, :, None])[:, :, 0].float()


def head_scores(u: Tensor, h: Tensor, P: Tensor, H: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """`reference.head_scores` where every token has a head with H."""
    h = head_products(h.flatten(1), H, slot)[:, None]
    return attribution_scores(head_products(u, P, slot), h, K, slot)


def trace_update(
    parameter: Tensor,
    trace: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    gradient: Tensor,
    owner: Tensor,
    adamw: AdamW,
) -> None:
    """`reference.trace_update` in place, where every example has an owner."""
    g = torch.zeros_like(trace).index_add_(0, owner, gradient)
    first_moment.lerp_(g, 1 - adamw.beta1)
    second_moment.mul_(adamw.beta2).add_((1 - adamw.beta2) * g.sum(0) ** 2)
    d = -adamw.lr / adamw.correction1 * first_moment / ((second_moment / adamw.correction2).sqrt() + adamw.eps)
    trace.mul_(adamw.decay).add_(d)
    parameter.mul_(adamw.decay).add_(d.sum(0))
