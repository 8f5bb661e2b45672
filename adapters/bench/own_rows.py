"""This project's rows of the benchmark: exact scorers, and heads by target, width and basis."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters.training.bank import Bank
from adapters.training.calibrated import Evidence, choose, folds, label
from adapters.training.fitting import Fitting
from adapters.training.lds import Array, Index, Outcomes
from adapters.training.model import HiddenCache
from adapters.training.observe import Observations
from adapters.training.outcomes import sums
from adapters.training.packs import common_prefix, make_packs
from adapters.training.ridge import Bilinear, fit_bilinear, fit_narrow
from adapters.training.scorers import DirectionScorer, Scorer, fisher_scorers
from adapters.training.subsets import HALF
from adapters.training.tokens import TokenExample

RIDGE = 0.1
WIDTHS = ((32, 8), (64, 8), (64, 32), (64, 448), (128, 8), (128, 448))
"""(k, d) of the heads that are compared; 448 tap directions are all of them."""
RETRAINED_FOLDS = 4
"""Of a datamodel of each query: three quarters of 32 half subsets predict the fourth; of fewer, a half the other."""
FACTORS = 8
"""Contributor factors of one more head, fewer than contributors: what sharing them costs."""


@dataclass(frozen=True)
class OwnRow:
    """Scores [Q, C]: one table, or one for each of `held_out` fitted without those half subsets of the bank.

    `tokens` [N, C] are a head's scores of each token, for its correlation with an exact scorer.
    """

    scores: Sequence[Array]
    facts: dict[str, Any]
    held_out: Sequence[Index] = ()
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Seen:
    """Calibration text and queries, observed once under every exact scorer; seconds of each part."""

    calibration_examples: Sequence[TokenExample]
    calibration: Observations
    queries: Observations
    query_count: int
    seconds: dict[str, float]


def observe_all(fitting: Fitting, queries: Sequence[TokenExample]) -> Seen:
    """What all rows are made of."""
    started = time.monotonic()
    scorers: list[Scorer] = [fitting.trace, fitting.in_run, *_final_weights(fitting), fitting.ekfac]
    built = time.monotonic()
    examples = fitting.calibration_examples()
    calibration = fitting.observe(examples, "calibration text", scorers)
    calibrated = time.monotonic()
    asked = fitting.observe(queries, "queries", scorers)
    ended = time.monotonic()
    seconds = {"scorers": built - started, "calibration": calibrated - built, "queries": ended - calibrated}
    return Seen(examples, calibration, asked, len(queries), seconds)


def exact_rows(seen: Seen, parameters: int) -> dict[str, OwnRow]:
    """Every exact scorer; build seconds and time a token are of the pass that scored them all."""
    return {
        f"exact-{name}": OwnRow(
            [sums(table, seen.queries.example, seen.query_count).numpy()],
            _facts(
                seen.seconds["scorers"],
                1e6 * seen.seconds["queries"] / len(seen.queries.example),
                table.shape[1] * parameters * 4,
                forward_only=False,
            ),
        )
        for name, table in seen.queries.scores.items()
    }


def head_rows(fitting: Fitting, seen: Seen, *, compared: bool) -> dict[str, OwnRow]:
    """The head that a fit without a bank would write; `compared` with heads by target and numbers of directions."""
    labels = fitting.labels((list(seen.calibration_examples), seen.calibration))
    exact = {name: seen.calibration.scores[name] for name in ("trace", "ekfac")}
    regime = fitting.regime
    whole = fitting.target((list(seen.calibration_examples), seen.calibration))
    rows = {"head-served": _head(fitting, seen, whole, (regime.k, regime.d), regime.ridge_ppm / 1e6)}
    if not compared:
        return rows
    rows |= {f"head-provenance-k{k}-d{d}": _head(fitting, seen, labels, (k, d)) for k, d in WIDTHS[:1]}
    for name, target in exact.items():
        rows[f"head-{name}-full"] = _head(fitting, seen, target, None)
        for k, d in WIDTHS:
            rows[f"head-{name}-k{k}-d{d}"] = _head(fitting, seen, target, (k, d))
        rows[f"head-{name}-k64-d8-m{FACTORS}"] = _head(fitting, seen, target, (64, 8, FACTORS))
    return rows


def calibrated_row(fitting: Fitting, seen: Seen, evidence: Evidence, outcomes: Outcomes) -> OwnRow:
    """The head of the mix that the bank chose, fitted once for each fold it is judged on. Reports its own queries."""
    started = time.monotonic()
    choice = choose(seen.calibration, evidence, seen.queries, outcomes, RIDGE)
    held_out = folds(len(outcomes.members))
    made = [_head(fitting, seen, evidence.mixed(choice.shares, fold), (64, 8)) for fold in held_out]
    facts = made[0].facts | {
        "build_seconds": round(time.monotonic() - started, 1),
        "target": label(choice.shares),
        "candidates": {name: round(value * 1e6) for name, value in choice.candidates.items()},
        "reporting": choice.reporting,
    }
    return OwnRow([row.scores[0] for row in made], facts, held_out)


def retrained_row(seen: Seen, bank: Bank, queries: Sequence[TokenExample], evidence: Evidence) -> OwnRow:
    """Datamodel of each query's own tokens, pulled toward exact scorers: what whoever kept the bank can audit with.

    `evidence` is of the queries' tokens. Its costs: training the half subsets, and each token's margin under them all.
    """
    subsets = len({run.members for run in evidence.runs if run.kind == HALF})
    held_out = folds(subsets, max(2, min(RETRAINED_FOLDS, subsets // 8)))
    tables = [evidence.bank_target(fold) for fold in held_out]
    a_token = 1000 * sum(bank.milliseconds(queries)) / len(seen.queries.example)
    built = seen.seconds["scorers"] + sum(bank.milliseconds()) / 1000
    facts = _facts(built, a_token, bank.bytes, forward_only=False)
    return OwnRow([sums(table, seen.queries.example, seen.query_count).numpy() for table in tables], facts, held_out)


def _head(
    fitting: Fitting, seen: Seen, target: Tensor, directions: tuple[int, ...] | None, ridge: float = RIDGE
) -> OwnRow:
    """A head of (k, d) directions, perhaps with factors, or at full width."""
    started = time.monotonic()
    u, h = seen.calibration.u, seen.calibration.h
    if directions is None:
        head = Bilinear(fit_bilinear(u, h, target, ridge), torch.eye(u.shape[1]))
    else:
        head = fit_narrow(u, h, target, ridge, *directions)
    built = time.monotonic()
    tokens = head.scores(seen.queries.u, seen.queries.h)
    facts = _facts(
        seen.seconds["scorers"] + seen.seconds["calibration"] + built - started,
        1e6 * (time.monotonic() - built) / len(tokens),
        head.bytes,
        forward_only=True,
    )
    return OwnRow([sums(tokens, seen.queries.example, seen.query_count).numpy()], facts, tokens=tokens)


def _final_weights(fitting: Fitting) -> tuple[DirectionScorer, DirectionScorer]:
    examples = fitting.data.examples
    cache = HiddenCache(fitting.model, examples, common_prefix(examples))
    packs = make_packs(examples, cache.prefix, 160, random.Random(0))
    batches = [packs[i : i + 2] for i in range(0, len(packs), 2)]
    return fisher_scorers(fitting.model, cache, batches, len(fitting.data.contributors))


def _facts(build_seconds: float, microseconds: float, stored: int, *, forward_only: bool) -> dict[str, Any]:
    """The cost columns that peers have too. A head's time a token is the contraction alone."""
    return {
        "library": "openledger",
        "version": "-",
        "build_seconds": round(build_seconds, 1),
        "microseconds_per_scored_token": round(microseconds, 1),
        "bytes_stored": stored,
        "forward_only": forward_only,
    }
