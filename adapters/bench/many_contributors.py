"""A Datanet of many contributors: what the engine pays for them, and what factoring them costs in LDS.

A head of more than 64 contributors shares its columns: the worker computes m numbers a token, K [m, ...], and whoever
meters turns them into everyone's scores, s Q^T with Q [C, m], beside the worker (docs/formats/head.md). Two questions:

cost    the score step of a decode step on this processor (readout, narrowing, scores; random tensors of the demo's
        sizes), for 64 contributors, 1,000 with factors, and 1,000 without; and Q, of a whole answer.
lds     every example of a world's Datanet as a contributor of its own. What an owner's examples score together is
        judged by the world's bank, which left out owners: beside a head of the owners themselves, what is lost with m
        factors is lost by factoring alone.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapters.bench.attack_world import gradient_totals
from adapters.bench.peers.reader import World
from adapters.bench.trained_world import TrainedWorld
from adapters.training.bank import BankConfig
from adapters.training.fitting import Fitting
from adapters.training.kronecker import curvature
from adapters.training.lds import Outcomes, ceiling, lds
from adapters.training.model import HiddenCache
from adapters.training.observe import Observations
from adapters.training.outcomes import sums
from adapters.training.packs import common_prefix, make_packs
from adapters.training.progress import Progress, silent
from adapters.training.ridge import fit_narrow
from adapters.training.scorers import DirectionScorer
from adapters.training.threads import threads
from kernels import ops

PPM = 1_000_000
DAMPING, RIDGE = 1.0, 0.1
VOCABULARY, WIDTH, TAPPED = 49_152, 576, 448
"""Of the demo: SmolLM2-135M, 56 modules of rank 8."""
DIRECTIONS = (64, 8)
MANY, FEW = 1_000, 64
ANSWER_TOKENS = 64
FACTORS = (8, 16, 32, 64)
AT_ONCE = 20
"""Contributors whose scores are computed together: 240 at once would take 0.6 GB a batch."""


def step_cost(tokens: int, rounds: int, thread_count: int = 2) -> dict[str, Any]:
    """Median microseconds of the parts of a score step of so many tokens; all parts take turns in each round."""
    with threads(thread_count), torch.no_grad():
        parts = _parts(tokens)
        taken: dict[str, list[float]] = {name: [] for name in parts}
        for part in parts.values():
            part()
        for _ in range(rounds):
            for name, part in parts.items():
                started = time.perf_counter()
                part()
                taken[name].append(1e6 * (time.perf_counter() - started))
    return {"tokens": tokens, "microseconds": {name: round(statistics.median(t), 1) for name, t in taken.items()}}


def _parts(tokens: int) -> dict[str, Callable[[], object]]:
    k, d = DIRECTIONS
    draw = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=draw)
    emitted = torch.randint(VOCABULARY, (tokens,), generator=draw)
    ranks = 1.0 + torch.rand(tokens, VOCABULARY, generator=draw).argsort(1)
    logits = normal(tokens, VOCABULARY) / 2 - 1.3 * ranks.log()  # as likely words fall off in text
    unembedding, normed = normal(VOCABULARY, WIDTH), normal(tokens, WIDTH)
    mean_row, g = unembedding.mean(0), torch.ones(WIDTH)
    slot = torch.zeros(tokens, dtype=torch.int32)
    u, h = normal(tokens, WIDTH), normal(tokens, TAPPED)
    P, H = normal(1, k, WIDTH), normal(1, d, TAPPED)

    def scores(K: Tensor) -> Tensor:
        narrow = ops.head_products(h, H, slot)[:, None]
        return ops.attribution_scores(ops.head_products(u, P, slot), narrow, K, slot)

    Q = np.random.default_rng(0).normal(size=(FEW, MANY))
    answer = np.random.default_rng(1).integers(-(10**6), 10**6, (ANSWER_TOKENS, FEW))
    return {
        "readout": partial(ops.readout, logits, emitted, normed, unembedding, mean_row, g),
        f"scores of {FEW}": partial(scores, normal(1, FEW, 1, k, d)),
        f"scores of {MANY}, {FEW} factors": partial(scores, normal(1, FEW, 1, k, d)),
        f"scores of {MANY}, no factors": partial(scores, normal(1, MANY, 1, k, d)),
        f"Q of an answer of {ANSWER_TOKENS} tokens": lambda: np.rint(answer @ Q).astype(np.int64),
    }


def factoring(
    world_dir: Path, config: BankConfig, *, thread_count: int = 2, progress: Progress = silent
) -> dict[str, Any]:
    """LDS by number of factors, of heads with one contributor an example; by kind of query."""
    with threads(thread_count):
        trained = TrainedWorld.load(world_dir, config, thread_count, progress)
        world, fitting, queries, measured = trained.world, trained.fitting, trained.queries, trained.measured
        scorers = _one_an_example(fitting, progress)
        calibration = fitting.observe(fitting.calibration_examples(), "calibration text", scorers)
        asked = fitting.observe(queries, "queries", scorers)
        owners = torch.tensor([example.owner for example in fitting.data.examples])
        owned = torch.nn.functional.one_hot(owners).double()
        rows = {"exact": _judged(_joined(asked) @ owned, asked, measured, world)}
        targets = _joined(calibration)
        made = fit_narrow(calibration.u, calibration.h, targets @ owned, RIDGE, *DIRECTIONS)
        rows["owners"] = _judged(made.scores(asked.u, asked.h), asked, measured, world) | {"bytes": made.bytes}
        for done, factors in enumerate(FACTORS, start=1):
            made = fit_narrow(calibration.u, calibration.h, targets, RIDGE, *DIRECTIONS, factors)
            found = _judged(made.scores(asked.u, asked.h) @ owned, asked, measured, world)
            rows[f"{factors} factors"] = found | {"bytes": made.bytes}
            progress("factors", done, len(FACTORS), "")
    kinds = [line.kind for line in world.queries]
    limits = {kind: measured.of([at for at, own in enumerate(kinds) if own == kind]) for kind in dict.fromkeys(kinds)}
    return {
        "contributors": len(owners),
        "owners": owned.shape[1],
        "ceiling_ppm": {kind: round(PPM * ceiling(part)) for kind, part in limits.items()},
        "rows": rows,
    }


def _one_an_example(fitting: Fitting, progress: Progress) -> list[DirectionScorer]:
    """EK-FAC influence with a contributor an example, in scorers of a few contributors each."""
    model, data = fitting.model, fitting.data
    examples = [replace(example, owner=number) for number, example in enumerate(data.examples)]
    cache = HiddenCache(model, examples, common_prefix(examples))
    packs = make_packs(examples, cache.prefix, 160, random.Random(0))
    totals = gradient_totals(model, cache, [packs[at : at + 8] for at in range(0, len(packs), 8)], len(examples))
    packs = make_packs(data.examples, cache.prefix, 160, random.Random(0))
    found = curvature(model, cache, [packs[at : at + 2] for at in range(0, len(packs), 2)], progress)
    parts = [totals[at : at + AT_ONCE] for at in range(0, len(totals), AT_ONCE)]
    return [
        DirectionScorer(f"{at:04d}", found.corrected(model, part, DAMPING) / len(examples))
        for at, part in enumerate(parts)
    ]


def _joined(seen: Observations) -> Tensor:
    """Scores [N, C] of all contributors, fp64."""
    return torch.cat([seen.scores[name] for name in sorted(seen.scores)], dim=1).double()


def _judged(tokens: Tensor, asked: Observations, measured: Outcomes, world: World) -> dict[str, Any]:
    """LDS by kind of query, of scores [N, owners] of the queries' tokens."""
    scores = sums(tokens, asked.example, len(world.queries)).numpy()
    kinds = [line.kind for line in world.queries]
    found = {}
    for kind in dict.fromkeys(kinds):
        at = [number for number, own in enumerate(kinds) if own == kind]
        found[kind] = lds(scores[at], measured.of(at)).record()
    return found


def many_contributors_table(report: Mapping[str, Any]) -> str:
    """For the terminal."""
    lines = []
    for cost in report["step_cost"]:
        lines.append(f"score step of {cost['tokens']} tokens, microseconds")
        lines += [f"  {name:<36}{value:>10,.1f}" for name, value in cost["microseconds"].items()]
    if report["factoring"] is None:
        return "\n".join(lines)
    found = report["factoring"]
    lines.append(f"{found['contributors']} contributors, judged by {found['owners']} owners; {found['ceiling_ppm']}")
    kinds = list(found["ceiling_ppm"])
    lines.append(f"{'head':<12}" + "".join(f"{kind:>24}" for kind in kinds) + f"{'bytes':>12}")
    for name, row in found["rows"].items():
        cells = (
            f"{row[k]['ppm'] / PPM:.3f} [{row[k]['low_ppm'] / PPM:.2f}, {row[k]['high_ppm'] / PPM:.2f}]" for k in kinds
        )
        lines.append(f"{name:<12}" + "".join(f"{cell:>24}" for cell in cells) + f"{row.get('bytes', 0):>12,}")
    return "\n".join(lines)
