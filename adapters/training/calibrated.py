"""Which target a head reproduces, decided by retraining.

A head is linear in its target: one ridge fit gives a head for each exact scorer, for provenance labels and for the
bank's own datamodel coefficients, and convex mixes of the heads are heads of mixed targets. The bank judges them all by
LDS, cross-fitted: what was fitted to half of the subsets is judged on the other half. Every other query chooses; the
rest report, so that the reported figure is not the best of many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from adapters.training.datamodel import coefficients
from adapters.training.lds import Array, Index, Outcomes, lds
from adapters.training.observe import Observations
from adapters.training.outcomes import sums
from adapters.training.ridge import Bilinear, fit_bilinear
from adapters.training.subsets import HALF, Run

BANK = "bank"
FOLDS = 2
SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Choice:
    """Shares of the chosen mix by target, the LDS of every candidate on the choosing queries, and the other queries."""

    shares: dict[str, float]
    candidates: dict[str, float]
    reporting: list[int]


def folds(subsets: int, count: int = FOLDS) -> list[Index]:
    """Indices of the half subsets of each of `count` folds; a subset and its complement are in one."""
    pair = np.arange(subsets) // 2
    return [np.flatnonzero(pair % count == fold) for fold in range(count)]


def mixes(targets: Sequence[str]) -> list[dict[str, float]]:
    """Each target alone, and every two of them in quarters."""
    pairs = [{a: share, b: 1 - share} for a, b in combinations(targets, 2) for share in SHARES]
    return [{target: 1.0} for target in targets] + pairs


@dataclass(frozen=True)
class Evidence:
    """What retraining says of some tokens: `margins` [R, N] under `runs`, of contributors `present`.

    `targets` [N, C] in nats are what else a head could be fitted to; the bank's own starts from those named `toward`.
    """

    margins: Tensor
    runs: Sequence[Run]
    present: Sequence[int]
    targets: Mapping[str, Tensor]
    toward: Sequence[str]

    @property
    def contributors(self) -> int:
        """Columns of a target."""
        return next(iter(self.targets.values())).shape[1]

    def bank_target(self, without: Index | None = None) -> Tensor:
        """Datamodel coefficients [N, C], leaving out half subsets by their index."""
        left = set() if without is None else set(without.tolist())
        halves = [i for i, run in enumerate(self.runs) if run.kind == HALF]
        count = len({self.runs[i].members for i in halves})
        dropped = {i for place, i in enumerate(halves) if place % count in left}
        kept = [i for i in range(len(self.runs)) if i not in dropped]
        runs, start = [self.runs[i] for i in kept], [self.targets[name] for name in self.toward]
        return coefficients(self.margins[kept], runs, self.present, self.contributors, start)

    def mixed(self, shares: Mapping[str, float], without: Index | None = None) -> Tensor:
        """The target [N, C] of a mix in nats: parts brought to one root mean square, that of the bank's target."""
        bank = self.bank_target(without)
        parts = {name: bank if name == BANK else self.targets[name].double() for name in shares}
        unit = float(bank.square().mean().sqrt())
        scale = {name: float(part.square().mean().sqrt()) or 1.0 for name, part in parts.items()}
        return torch.stack([unit * share / scale[name] * parts[name] for name, share in shares.items()]).sum(0)


def choose(
    calibration: Observations, evidence: Evidence, queries: Observations, outcomes: Outcomes, ridge: float
) -> Choice:
    """The mix whose head, fitted to `calibration` at full width, has the best cross-fitted LDS on every other query."""
    held_out = folds(len(outcomes.members))
    tables = [*(table.double() for table in evidence.targets.values()), *map(evidence.bank_target, held_out)]
    scale = [float(table.square().mean().sqrt()) or 1.0 for table in tables]
    solved = fit_bilinear(calibration.u, calibration.h, torch.cat(tables, dim=1), ridge).split(evidence.contributors)
    wide = torch.eye(calibration.u.shape[1])
    scores = [
        query_scores(Bilinear(K, wide), queries, len(outcomes.owner)) / size
        for K, size in zip(solved, scale, strict=True)
    ]
    fixed = dict(zip(evidence.targets, scores, strict=False))
    by_fold = [fixed | {BANK: own} for own in scores[len(fixed) :]]
    choosing, reporting = alternate(outcomes.owner)
    judged = outcomes.of(choosing)
    found: dict[str, float] = {}
    best: tuple[float, dict[str, float]] = (-2.0, {})
    for shares in mixes([*fixed, BANK]):
        mixed = [np.sum([share * table[name][choosing] for name, share in shares.items()], axis=0) for table in by_fold]
        value = lds(mixed, judged, held_out, draws=1).value
        found[label(shares)] = value
        best = max(best, (value, shares), key=lambda pair: pair[0])
    return Choice(best[1], found, reporting)


def query_scores(head: Bilinear, queries: Observations, count: int) -> Array:
    """Scores [Q, C] of a head on observed queries, summed over each query's tokens."""
    return sums(head.scores(queries.u, queries.h), queries.example, count).numpy()


def alternate(owner: Index) -> tuple[list[int], list[int]]:
    """Choosing and reporting queries: every other one of each owner."""
    sides: tuple[list[int], list[int]] = ([], [])
    seen: dict[int, int] = {}
    for index, of in enumerate(owner.tolist()):
        sides[seen.get(of, 0) % 2].append(index)
        seen[of] = seen.get(of, 0) + 1
    return sides


def label(shares: Mapping[str, float]) -> str:
    """For people: `trace`, or `0.25 trace + 0.75 ekfac`."""
    return " + ".join(name if share == 1 else f"{share:g} {name}" for name, share in shares.items())
