"""EK-FAC influence: gradients divided by a Kronecker-factored curvature with corrected eigenvalues.

For one trained map (a module's B; its A too where that was trained) the gradient at position s is g_s h_s^T. With
E[g g^T] = U_G D U_G^T and E[h h^T] = U_H D' U_H^T, the curvature is taken as diagonal in the basis U_G (x) U_H, with
eigenvalues fitted there (George et al., 2018):

    Lambda_ij = E_s[ (U_G^T g_s)_i^2 (U_H^T h_s)_j^2 ]
    T_c       = U_G [ (U_G^T G_c U_H) / (Lambda + damping mean(Lambda)) ] U_H^T,   G_c = sum of c's d log p / dB

The Fisher is the empirical one (labels of the data), as for `fisher` in scorers.py; Grosse et al. (2023) sample labels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.training.dataset import TokenDataset
from adapters.training.gradients import Capture
from adapters.training.model import AdaptedModel, HiddenCache
from adapters.training.packs import Pack, common_prefix, make_packs
from adapters.training.progress import Progress, silent
from adapters.training.scorers import DirectionScorer


@dataclass(frozen=True)
class Curvature:
    """Per trained map: eigenvectors of E[g g^T] [out, out] and E[h h^T] [in, in], corrected eigenvalues [out, in]."""

    outer: dict[str, Tensor]
    inner: dict[str, Tensor]
    eigenvalues: dict[str, Tensor]

    def corrected(self, model: AdaptedModel, totals: Tensor, damping: float) -> Tensor:
        """Directions [C, P]: gradients `totals` [C, P] divided by the damped curvature."""
        parts = []
        for name, gradient in model.split(totals).items():
            u, v, values = self.outer[name], self.inner[name], self.eigenvalues[name]
            rotated = u.T @ gradient @ v / (values + damping * values.mean())
            parts.append((u @ rotated @ v.T).flatten(1))
        return torch.cat(parts, dim=1)


def curvature(
    model: AdaptedModel, cache: HiddenCache, batches: Sequence[Sequence[Pack]], progress: Progress = silent
) -> Curvature:
    """Two passes over the training examples: the factors, then the eigenvalues in their basis."""
    outer: dict[str, Tensor] = {}
    inner: dict[str, Tensor] = {}
    for name, g, h in _positions(model, cache, batches, progress, "curvature factors"):
        outer[name] = outer.get(name, 0) + g.T @ g
        inner[name] = inner.get(name, 0) + h.T @ h
    basis_outer = {name: torch.linalg.eigh(total.double())[1].to(total.dtype) for name, total in outer.items()}
    basis_inner = {name: torch.linalg.eigh(total.double())[1].to(total.dtype) for name, total in inner.items()}
    squares: dict[str, Tensor] = {}
    count: dict[str, int] = {}
    for name, g, h in _positions(model, cache, batches, progress, "curvature eigenvalues"):
        squares[name] = squares.get(name, 0) + ((g @ basis_outer[name]) ** 2).T @ (h @ basis_inner[name]) ** 2
        count[name] = count.get(name, 0) + len(g)
    return Curvature(basis_outer, basis_inner, {name: total / count[name] for name, total in squares.items()})


def ekfac_scorer(
    model: AdaptedModel, data: TokenDataset, damping: float = 1.0, progress: Progress = silent
) -> DirectionScorer:
    """The `ekfac` scorer of a Datanet at the adapter's weights.

    `damping` 1 was best of 0.01 to 100 by LDS on real text (docs/ATTRIBUTION.md).
    """
    contributors = len(data.contributors)
    cache = HiddenCache(model, data.examples, common_prefix(data.examples))
    packs = make_packs(data.examples, cache.prefix, 160, random.Random(0))
    batches = [packs[i : i + 2] for i in range(0, len(packs), 2)]
    totals = torch.zeros(contributors, model.parameter.numel())
    for batch in batches:
        capture = _log_likelihood(model, cache, batch)
        totals += capture.by_owner(torch.tensor([pack.owner for pack in batch]), contributors)
    found = curvature(model, cache, batches, progress)
    return DirectionScorer("ekfac", found.corrected(model, totals, damping) / len(data.examples))


def _positions(
    model: AdaptedModel, cache: HiddenCache, batches: Sequence[Sequence[Pack]], progress: Progress, stage: str
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, g [n, out], h [n, in]) of all positions of each batch; g of the summed log likelihood."""
    for done, batch in enumerate(batches, start=1):
        capture = _log_likelihood(model, cache, batch)
        for name in model.trained:
            yield name, capture.g[name].flatten(0, 1), capture.h[name].flatten(0, 1)
        progress(stage, done, len(batches), "")


def _log_likelihood(model: AdaptedModel, cache: HiddenCache, batch: Sequence[Pack]) -> Capture:
    """The captured pass over a batch, g of its summed log likelihood."""
    hidden, layout = cache.batch(batch)
    with Capture(model) as capture:
        _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
        (-torch.nn.functional.cross_entropy(logits, layout.target, reduction="sum")).backward()
    return capture
