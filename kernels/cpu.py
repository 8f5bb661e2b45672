"""The operations on a CPU: batched torch, no loop over tokens. Specification: `kernels.reference`."""

import torch
from torch import Tensor

from kernels.reference import AdamW


def readout(logits: Tensor, emitted: Tensor, normed: Tensor, W_P: Tensor, P_over_g: Tensor) -> tuple[Tensor, Tensor]:
    """u [n, k] and margin [n]; see `reference.readout`."""
    y = emitted[:, None]
    z = logits.float()
    z_y = z.gather(1, y)
    others = z.scatter(1, y, -torch.inf)
    top = others.amax(1, keepdim=True)
    weights = others.sub_(top).exp_()
    mass = weights.sum(1, keepdim=True)
    q_z = torch.linalg.vecdot(weights, torch.where(weights > 0, z, 0))[:, None] / mass
    u = W_P[emitted].float() - (weights @ W_P.float()) / mass
    u -= (z_y - q_z) / normed.shape[1] * (normed.float() @ P_over_g.float())
    return u, (z_y - top - mass.log())[:, 0]


def attribution_scores(u: Tensor, h: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m]; see `reference.attribution_scores`. One matrix product per active adapter, whatever its tokens."""
    slots, m = K.shape[:2]
    scores = u.new_zeros(len(u), m, dtype=torch.float32)
    heads = K.reshape(slots, m, -1)
    for s in slot.unique().tolist():
        if s < 0:
            continue
        rows = (slot == s).nonzero()[:, 0]
        features = h[rows].float()[:, :, None, :] * u[rows].float()[:, None, :, None]
        scores[rows] = features.flatten(1) @ heads[s].float().T
    return scores


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
