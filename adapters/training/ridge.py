"""Ridge regression of scores on phi = u (x) h / s, in whichever of its two forms is smaller."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REFIT = 3.0
"""The ridge of a fit in few directions over that of the wide fit that chose them: docs/formats/head.md."""

MAX_FACTORS = 64
"""Columns of K; a Datanet of more contributors shares them through Q."""


@dataclass(frozen=True)
class Bilinear:
    """score_c = sum_a Q[c,a] sum_l (P^T u)^T K[a,l] (H^T h)_l, nats.

    K [m, M', k, r'], P [D, k]. H [M, r, d] turns the taps' activations h [M, r] into M' = 1 activation of r' = d
    numbers, sum_l H_l^T h_l; without H, K holds every tap as it is. Without Q [C, m], m is C.
    """

    K: Tensor
    P: Tensor
    H: Tensor | None = None
    Q: Tensor | None = None

    def scores(self, u: Tensor, h: Tensor) -> Tensor:
        """Scores [N, C], fp64, of u [N, D] and h [N, M, r]."""
        a, h, K = u.double() @ self.P.double(), h.double(), self.K.double()
        if self.H is not None:
            h = torch.einsum("nmr,mrd->nd", h, self.H.double())[:, None]
        scores = apply_bilinear(K, a, h)
        return scores if self.Q is None else scores @ self.Q.double().T

    @property
    def rank(self) -> int:
        """r of the taps' activations."""
        return self.K.shape[-1] if self.H is None else self.H.shape[1]

    @property
    def bytes(self) -> int:
        """Size of its tensors."""
        return 4 * sum(part.numel() for part in (self.K, self.P, self.H, self.Q) if part is not None)


def fit_bilinear(u: Tensor, h: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """K [C, M, k, r] that minimises sum_t |score(t) - target(t)|^2 + penalty, for score_c = sum_l u^T K[c,l] h_l.

    u [N, k], h [N, M, r], targets [N, C]. With s_l the root mean square of h on module l, phi_t stacks
    u_t (x) h_tl / s_l and the penalty is lambda |K s|^2, lambda = `ridge` times the mean squared norm of phi. Kernel
    form for N <= M k r: kernel(t, t') = <u, u'> sum_l <h_l, h'_l> / s_l^2 and K[c,l] = s_l^-2 sum_t alpha_tc
    u_t (x) h_tl; primal form otherwise (ATTRIBUTION.md section 3). fp64. A column of zeros in `targets` gives exact
    zeros.
    """
    u, h, targets = u.double(), h.double(), targets.double()
    scale = module_scale(h)
    scaled = h / scale[:, None]
    count, features = len(u), u.shape[1] * h.shape[1] * h.shape[2]
    if count <= features:
        kernel = (u @ u.T) * (scaled.flatten(1) @ scaled.flatten(1).T)
        kernel.diagonal().add_(ridge * kernel.diagonal().mean())
        alpha = torch.linalg.solve(kernel, targets)
        solution = torch.einsum("nc,nk,nmr->cmkr", alpha, u, scaled)
    else:
        phi = torch.einsum("nk,nmr->nmkr", u, scaled).flatten(1)
        gram = phi.T @ phi
        gram.diagonal().add_(ridge * gram.diagonal().sum() / count)
        solution = torch.linalg.solve(gram, phi.T @ targets).T.unflatten(1, (h.shape[1], u.shape[1], h.shape[2]))
    return (solution / scale[:, None, None]).float() * (targets != 0).any(0)[:, None, None, None]


def fit_narrow(
    u: Tensor, h: Tensor, targets: Tensor, ridge: float, k: int, d: int, factors: int = MAX_FACTORS
) -> Bilinear:
    """The fit at full width, then again in the k readout and d tap directions that carry most of it.

    u [N, D], h [N, M, r]. The directions are the leading singular vectors of cov(u)^(1/2) K cov(h / s)^(1/2), unfolded
    along either side (a truncated higher-order SVD, De Lathauwer et al. 2000; s as in `fit_bilinear`): what random
    tokens would lose in their scores is least. The second fit has k d features and REFIT times the ridge. Of more than
    `factors` contributors the wide fit is to as many mixtures of them, and the second one to all, then `_factored`.
    """
    wanted, many = targets, targets.shape[1] > factors
    if many:
        scaled_targets = targets.double() / _size(targets.double())
        wanted = scaled_targets @ _leading_columns(scaled_targets, factors)
    scale = module_scale(h.double())
    scaled = (h.double() / scale[:, None]).flatten(1)
    wide = fit_bilinear(u, h, wanted, ridge).double() * scale[:, None, None]
    root_u, back_u = _roots(u.double())
    root_h, back_h = _roots(scaled)
    carried = root_u @ wide.permute(0, 2, 1, 3).flatten(2) @ root_h
    P = torch.linalg.qr(back_u @ _leading(carried.permute(1, 0, 2), k))[0]
    H = torch.linalg.qr(back_h @ _leading(carried.permute(2, 0, 1), d))[0]
    K = fit_bilinear(u.double() @ P, (scaled @ H)[:, None], targets, REFIT * ridge)
    H = H.unflatten(0, h.shape[1:]) / scale[:, None, None]
    head = Bilinear(K, P.float(), H.float())
    return _factored(head, head.scores(u, h), factors) if many else head


def _factored(head: Bilinear, fitted: Tensor, factors: int) -> Bilinear:
    """The head with m = `factors` scores a token, from its own scores [N, C] on the text it was fitted to.

    Reduced-rank regression (Izenman 1975): of all K of m columns, what is fitted changes least, contributor by
    contributor relative to its size; with n_c that size and V the leading right singular vectors of fitted / n,

        Q = n V      K[a] = sum_c V[c,a] K_c / n_c

    Without n a few contributors with large scores take all columns (LDS of 240 in 64: docs/ATTRIBUTION.md section 8).
    """
    size = _size(fitted)
    V = _leading_columns(fitted / size, factors) * (fitted != 0).any(0)[:, None]
    K = torch.einsum("ca,cmkr->amkr", V / size[:, None], head.K.double())
    return Bilinear(K.float(), head.P, head.H, (V * size[:, None]).float())


def _size(columns: Tensor) -> Tensor:
    """Root mean square [C] of each column; 1 where a column is zero."""
    size = columns.square().mean(0).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size))


def _roots(x: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of the second moment of x [N, a] and its inverse."""
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    values = values.clamp_min(values.max() * 1e-9)
    return vectors * values.sqrt() @ vectors.T, vectors * values.rsqrt() @ vectors.T


def _leading(unfolded: Tensor, count: int) -> Tensor:
    """The leading left singular vectors [a, count] of a tensor [a, ...], from the a x a Gram matrix."""
    rows = unfolded.flatten(1)
    return torch.linalg.eigh(rows @ rows.T)[1].flip(1)[:, :count]


def _leading_columns(targets: Tensor, count: int) -> Tensor:
    """The leading right singular vectors [C, count] of targets [N, C]."""
    return torch.linalg.eigh(targets.T @ targets)[1].flip(1)[:, :count]


def module_scale(h: Tensor) -> Tensor:
    """s [M]: root mean square of h [N, M, r] over tokens and ranks; 1 where a module is silent."""
    scale = h.square().mean((0, 2)).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def apply_bilinear(K: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """Scores [N, C] of K [C, M, k, r] on u [N, k] and h [N, M, r]."""
    uh = torch.einsum("nk,nmr->nmkr", u, h).flatten(1)
    return uh @ K.flatten(1).T
