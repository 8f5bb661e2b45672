"""The specification of every kernel, in plain torch.

Each function computes in fp32, or in fp64 when an input is fp64; bf16 and fp16 inputs are exact inputs, widened first.
Nothing here is fast and nothing else in `kernels` may disagree with it. Equations: docs/ARCHITECTURE.md, "The score".
"""

from typing import NamedTuple

import torch
from torch import Tensor


class AdamW(NamedTuple):
    """The scalars of one AdamW step: `step` counts from 1, `weight_decay` is decoupled."""

    lr: float
    step: int
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    @property
    def decay(self) -> float:
        """What weight decay leaves of a parameter: 1 - lr weight_decay."""
        return 1.0 - self.lr * self.weight_decay

    @property
    def correction1(self) -> float:
        """Bias correction of the first moment: 1 - beta1^step."""
        return 1.0 - self.beta1**self.step

    @property
    def correction2(self) -> float:
        """Bias correction of the second moment: 1 - beta2^step."""
        return 1.0 - self.beta2**self.step


RARE = 3e-4
"""Below this probability a word begins to count as the mean word."""


def readout(
    logits: Tensor,
    emitted: Tensor,
    normed: Tensor,
    unembedding: Tensor,
    mean_row: Tensor,
    g: Tensor,
    rare: float = RARE,
) -> tuple[Tensor, Tensor]:
    """Readout direction and margin of the emitted tokens.

    u      = g ( W[y] - sum_v w_v W[v] - (1 - sum_v w_v) mean_row ) - ((z_y - q.z) / D) n / g
    w_v    = q_v clamp(q_v / rare - 1, 0, 1)              q = softmax(z), entry y masked out
    margin = z_y - log sum_{v != y} exp(z_v)              = log p_y - log(1 - p_y), nats

    logits [n, V] are z before the sampler changes them (an entry may be -inf, then it has no mass), emitted [n] int64
    is y, normed [n, D] is the output of the final RMSNorm and g [D] its weight, unembedding [V, D] is W and mean_row
    [D] the mean of its rows. Returns u [n, D] and margin [n]. With w = q, u is the gradient of the margin with respect
    to the residual before the norm, times its rms. Words rarer than `rare` together count as the mean word, so that
    fewer than 1 / rare rows of W are read for a token instead of V; the ramp up to 2 rare keeps u continuous in z.
    """
    z, n, W, mean_row, g = _widen(logits, normed, unembedding, mean_row, g)
    y = emitted[:, None]
    z_y = z.gather(1, y)
    others = z.scatter(1, y, -torch.inf)
    q = others.softmax(1)
    q_z = (q * torch.where(q > 0, z, 0)).sum(1, keepdim=True)
    w = q * (q / rare - 1).clamp(0, 1)
    expected = w @ W + (1 - w.sum(1, keepdim=True)) * mean_row
    u = g * (W[emitted] - expected) - (z_y - q_z) / n.shape[1] * n / g
    return u, z_y[:, 0] - others.logsumexp(1)


def head_products(x: Tensor, W: Tensor, slot: Tensor) -> Tensor:
    """y[i] = W[slot[i]] x[i], and 0 where slot[i] = -1: x [n, a], W [slots, b, a], slot [n] integer. Returns [n, b]."""
    x, W = _widen(x, W)
    y = x.new_zeros(len(x), W.shape[1])
    for i, s in enumerate(slot.tolist()):
        if s >= 0:
            y[i] = W[s] @ x[i]
    return y


def attribution_scores(u: Tensor, h: Tensor, K: Tensor, slot: Tensor) -> Tensor:
    """score[i, c] = sum_{l, a, b} u[i, a] h[i, l, b] K[slot[i], c, l, a, b], and 0 where slot[i] = -1.

    u [n, k], h [n, taps, r], K [slots, m, taps, k, r], slot [n] integer. Returns [n, m]. Rows of u and h with slot -1
    are never read.
    """
    u, h, K = _widen(u, h, K)
    scores = u.new_zeros(len(u), K.shape[1])
    for i, s in enumerate(slot.tolist()):
        if s >= 0:
            scores[i] = torch.einsum("a,lb,clab->c", u[i], h[i], K[s])
    return scores


def head_scores(u: Tensor, h: Tensor, P: Tensor, H: Tensor | None, K: Tensor, slot: Tensor) -> Tensor:
    """Scores [n, m] of u [n, D] and h [n, taps, r] against heads that first narrow them: P u and H h, or h itself.

    score[i, c] = sum (P[s] u[i]) K[s, c] (H[s] h[i])        s = slot[i], and 0 where slot[i] = -1

    P [slots, k, D]; H [slots, d, taps r] with K [slots, m, 1, k, d], or no H with K [slots, m, taps, k, r].
    """
    if H is not None:
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One AdamW step of a parameter, split by contributor.

    g_c        = sum_{e: owner[e] = c} gradient[e]
    m_c'       = beta1 m_c + (1 - beta1) g_c
    v'         = beta2 v + (1 - beta2) (sum_c g_c)^2
    d_c        = -lr / correction1 * m_c' / (sqrt(v' / correction2) + eps)
    trace_c'   = decay trace_c + d_c
    parameter' = decay parameter + sum_c d_c

    parameter [*], trace and first_moment [C, *], second_moment [*], gradient [E, *] (one row per example, already
    scaled and clipped), owner [E] integer, the contributor of each row; -1 leaves the row out (padding). Returns the
    four new states in the order of the arguments. From parameter = B_0 and zero traces, parameter_t = decay^t B_0 +
    sum_c trace_c holds after every step.
    """
    parameter, trace, m, v, gradient = _widen(parameter, trace, first_moment, second_moment, gradient)
    g = torch.stack([gradient[owner == c].sum(0) for c in range(len(trace))])
    m = adamw.beta1 * m + (1 - adamw.beta1) * g
    v = adamw.beta2 * v + (1 - adamw.beta2) * g.sum(0) ** 2
    d = -adamw.lr / adamw.correction1 * m / ((v / adamw.correction2).sqrt() + adamw.eps)
    return adamw.decay * parameter + d.sum(0), adamw.decay * trace + d, m, v


def _widen(*tensors: Tensor) -> list[Tensor]:
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    return [t.to(dtype) for t in tensors]
