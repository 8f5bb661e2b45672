"""This project's rows of the benchmark: exact scorers, and heads by target, width and basis."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adapters.training.basis import principal_directions
from adapters.training.calibrated import Evidence, choose, folds, label, query_scores
from adapters.training.fit import Fitting
from adapters.training.lds import Array, Index, Outcomes
from adapters.training.model import HiddenCache
from adapters.training.observe import Observations, Readout, observe
from adapters.training.packs import common_prefix, make_packs
from adapters.training.ridge import fit_bilinear, fit_narrow
from adapters.training.scorers import DirectionScorer, fisher_scorers
from adapters.training.tokens import TokenExample

LIBRARY = "openledger"


@dataclass(frozen=True)
class OwnRow:
    """Scores [Q, C]: one table, or one for each of `held_out` fitted without those half subsets of the bank."""

    scores: Sequence[Array]
    facts: dict[str, Any]
    held_out: Sequence[Index] = ()


@dataclass(frozen=True)
class Subject:
    """A fitting with the queries it is judged on, everything observed once."""

    fitting: Fitting
    queries: Sequence[TokenExample]
    calibration: Observations
    labels: Tensor
    seen: Observations
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, fitting: Fitting, queries: Sequence[TokenExample]) -> Subject:
        """Observe calibration text and queries under every exact scorer."""
        started = time.monotonic()
        scorers = [fitting.trace, fitting.ekfac, *_fisher(fitting)]
        built = time.monotonic()
        examples, _ = calibration = fitting.calibration_examples(), None
        seen = _observe(fitting, examples, scorers)
        calibrated = time.monotonic()
        asked = _observe(fitting, queries, scorers)
        seconds = {
            "scorers": built - started,
            "calibration": calibrated - built,
            "queries": time.monotonic() - calibrated,
        }
        return cls(fitting, queries, seen, fitting.labels((examples, seen)), asked, seconds)
