"""Should text that the base model predicts anyway earn nothing? Scores that forget it, judged by retraining.

EK-FAC influence of the world's Datanet with each training token's gradient weighted by what the base model had left to
learn there; y is the token, p the base model's probabilities, L_b and L the contributor's mean loss under the base
model and under the adapter:

    as it is            1                    not-first-choice    1 where y is not argmax p, else 0
    beside-best         1 - p_y / max p      unlikely            1 - p_y
    loss-drop           contributor c counts max(0, L_b - L) times

Beside LDS: what the contributor of base-predicted text is paid of a window of all queries of a kind (f = 1), what it
would be paid by the effect that retraining says it has, and the Pearson correlation over contributors of both totals.
The effect of c is the difference of the mean outcome of half subsets with c and of those without.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapters.bench import text
from adapters.bench.trained_world import TrainedWorld
from adapters.training.bank import BankConfig
from adapters.training.fitting import Fitting
from adapters.training.gradients import Capture
from adapters.training.kronecker import curvature
from adapters.training.lds import Array, Outcomes, ceiling, lds, lds_beyond_owner
from adapters.training.model import HiddenCache
from adapters.training.outcomes import sums
from adapters.training.packs import Pack, common_prefix, make_packs
from adapters.training.progress import Progress, silent
from adapters.training.scorers import DirectionScorer
from adapters.training.threads import threads

PPM = 1_000_000
DAMPING = 1.0
AS_IT_IS, LOSS_DROP = "as it is", "loss-drop"
WEIGHTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    AS_IT_IS: lambda own, best: torch.ones_like(own),
    "not-first-choice": lambda own, best: (own < best).float(),
    "beside-best": lambda own, best: 1 - (own - best).exp(),
    "unlikely": lambda own, best: 1 - own.exp(),
}
"""Weight of a training token, from log p of it and of the likeliest token under the base model."""


def base_predicted(
    world_dir: Path, config: BankConfig, *, thread_count: int = 2, progress: Progress = silent
) -> dict[str, Any]:
    """The report on a world with a bank beside it, as `judge` leaves it; it is trained where it is missing."""
    with threads(thread_count):
        trained = TrainedWorld.load(world_dir, config, thread_count, progress)
        world, fitting, queries, measured = trained.world, trained.fitting, trained.queries, trained.measured
        scorers, drop = _scorers(fitting, progress)
        seen = fitting.observe(queries, "queries", scorers)
    tables = {key: sums(table, seen.example, len(queries)).numpy() for key, table in seen.scores.items()}
    tables[LOSS_DROP] = tables[AS_IT_IS] * drop.clamp_min(0).numpy()
    kinds = np.array([line.kind for line in world.queries])
    predicted = world.contributors.index(text.PREDICTED)
    return {
        "type": "attribution-base-predicted",
        "loss_drop": {who: round(float(value), 3) for who, value in zip(world.contributors, drop, strict=True)},
        "kinds": {
            kind: _judged(tables, measured, np.flatnonzero(kinds == kind).tolist(), predicted)
            for kind in dict.fromkeys(kinds.tolist())
        },
    }


def _scorers(fitting: Fitting, progress: Progress) -> tuple[list[DirectionScorer], Tensor]:
    """EK-FAC by weight of a token, and each contributor's loss drop [C] in nats a token."""
    model, data = fitting.model, fitting.data
    owners = torch.tensor([example.owner for example in data.examples])
    cache = HiddenCache(model, data.examples, common_prefix(data.examples))
    packs = make_packs(data.examples, cache.prefix, 160, random.Random(0))
    batches = [packs[at : at + 2] for at in range(0, len(packs), 2)]
    totals = {name: torch.zeros(len(data.contributors), model.parameter.numel()) for name in WEIGHTS}
    drop, count = torch.zeros(2, len(data.contributors))
    for done, batch in enumerate(batches, start=1):
        hidden, layout = cache.batch(batch)
        before = _base_log_p(fitting, batch, cache)
        own, best = before.gather(1, layout.target[:, None])[:, 0], before.amax(1)
        for name, weight in WEIGHTS.items():
            with Capture(model) as capture:
                _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
                now = -torch.nn.functional.cross_entropy(logits, layout.target, reduction="none")
                (now * weight(own, best)).sum().backward()
            totals[name] += capture.by_owner(torch.tensor([pack.owner for pack in batch]), len(data.contributors))
        drop.index_add_(0, owners[layout.example], now.detach() - own)
        count.index_add_(0, owners[layout.example], torch.ones_like(own))
        progress("weighted gradients", done, len(batches), "")
    found = curvature(model, cache, batches, progress)
    examples = len(data.examples)
    directions = {name: found.corrected(model, total, DAMPING) / examples for name, total in totals.items()}
    return [DirectionScorer(name, table) for name, table in directions.items()], drop / count


@torch.no_grad()
def _base_log_p(fitting: Fitting, batch: list[Pack], cache: HiddenCache) -> Tensor:
    """log p [S, V] of the base model at the supervised tokens of a batch."""
    model = fitting.model
    trained = model.parameter.clone()
    model.parameter.zero_()
    hidden, layout = cache.batch(batch)
    _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
    model.parameter.copy_(trained)
    return logits.float().log_softmax(1)


def effects(measured: Outcomes) -> Array:
    """By how much each contributor [C] raises the summed outcome of all queries: mean with it less mean without."""
    total = measured.half.sum(2).mean(0)
    members = measured.members > 0
    return np.array([total[column].mean() - total[~column].mean() for column in members.T])


def pay_ppm(totals: Array, contributor: int) -> int:
    """What a contributor is paid at f = 1, of a million, by totals [C] of a window."""
    positive = np.clip(totals, 0, None)
    return round(PPM * float(positive[contributor] / positive.sum())) if positive.any() else 0


def _judged(tables: Mapping[str, Array], measured: Outcomes, at: list[int], predicted: int) -> dict[str, Any]:
    part = measured.of(at)
    truth = effects(part)
    rows = {}
    for name, table in tables.items():
        scores = table[at]
        totals = scores.sum(0)
        rows[name] = {
            "lds": lds(scores, part).record(),
            "lds_beyond_owner": lds_beyond_owner(scores, part).record(),
            "paid_ppm": pay_ppm(totals, predicted),
            "pearson_with_retraining_ppm": round(PPM * float(np.corrcoef(totals, truth)[0, 1])),
        }
    rank = 1 + int((truth > truth[predicted]).sum())
    retrained = {"paid_ppm": pay_ppm(truth, predicted), "rank": rank, "effect": round(float(truth[predicted]), 1)}
    return {"ceiling_ppm": round(PPM * ceiling(part)), "retrained": retrained, "rows": rows}


def predicted_table(report: Mapping[str, Any]) -> str:
    """For the terminal."""
    lines = []
    for kind, part in report["kinds"].items():
        retrained = part["retrained"]
        lines.append(
            f"{kind}: retraining pays {text.PREDICTED} {retrained['paid_ppm'] / PPM:.1%}, rank {retrained['rank']},"
            f" effect {retrained['effect']} nats; ceiling {part['ceiling_ppm'] / PPM:.3f}"
        )
        lines.append(f"{'weight of a training token':<28}{'LDS':>7}{'beyond':>8}{'paid':>8}{'r':>7}")
        for name, row in part["rows"].items():
            lines.append(
                f"{name:<28}{row['lds']['ppm'] / PPM:>7.3f}{row['lds_beyond_owner']['ppm'] / PPM:>8.3f}"
                f"{row['paid_ppm'] / PPM:>8.1%}{row['pearson_with_retraining_ppm'] / PPM:>7.3f}"
            )
    return "\n".join(lines)
