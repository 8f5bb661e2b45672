"""Ridge regression of scores on phi = u (x) h / s, in whichever of its two forms is smaller."""

from __future__ import annotations

import torch
from torch import Tensor


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


def fit_narrow(u: Tensor, h: Tensor, targets: Tensor, ridge: float, k: int) -> tuple[Tensor, Tensor]:
    """K [C, M, k, r] and P [D, k]: the fit at full width D, then again in the k directions that carry most of it.

    u [N, D]. The directions are the leading left singular vectors of cov(u)^(1/2) K s over contributors, modules and
    ranks, s as in `fit_bilinear`: what a random u would lose in its scores is least. The second fit regains a part of
    what the cut lost. P's columns are orthonormal.
    """
    wide = fit_bilinear(u, h, targets, ridge).double() * module_scale(h.double())[:, None, None]
    values, vectors = torch.linalg.eigh(u.double().T @ u.double() / len(u))
    values = values.clamp_min(values.max() * 1e-9)
    root = vectors * values.sqrt() @ vectors.T
    leading = torch.linalg.svd(root @ wide.permute(2, 0, 1, 3).flatten(1), full_matrices=False)[0][:, :k]
    P = torch.linalg.qr(vectors * values.rsqrt() @ vectors.T @ leading)[0]
    return fit_bilinear(u.double() @ P, h, targets, ridge), P.float()


def module_scale(h: Tensor) -> Tensor:
    """s [M]: root mean square of h [N, M, r] over tokens and ranks; 1 where a module is silent."""
    scale = h.square().mean((0, 2)).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def apply_bilinear(K: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """Scores [N, C] of K [C, M, k, r] on u [N, k] and h [N, M, r]."""
    uh = torch.einsum("nk,nmr->nmkr", u, h).flatten(1)
    return uh @ K.flatten(1).T
