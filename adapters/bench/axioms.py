"""Axioms, measured in the market of attacks.py: what must hold whatever anyone is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adapters.bench import text
from adapters.bench.attack_market import MAX_NEW_TOKENS, SCORERS, Market, pay
from adapters.bench.attack_texts import duplicates
from adapters.bench.attack_world import Owed, scored_in_parts
from metering.shares import PPM

NOBODY = "copier"
RETRAINING_SEEDS = (1, 2)


def measured_axioms(market: Market, honest: Owed, attacker: str) -> dict[str, Any]:
    """Split-neutrality, null and base-predicted contributors, the order of training, and splitting good from bad.

    `retrained`: what each contributor's pay would be if it followed from leaving out that contributor alone.
    """
    parts = scored_in_parts(market.world(market.honest), attacker, market.prompts, MAX_NEW_TOKENS)
    copies = duplicates(market.turns[attacker], 2)
    null = market.owed([*market.honest, (NOBODY, copies)])
    names = sorted(market.turns)
    renamed = {name: f"{len(names) - rank:02d}-{name}" for rank, name in enumerate(names)}
    order = _renamed(market.owed([(renamed[name], turns) for name, turns in market.honest]), renamed)
    seed = market.owed(market.honest, seed=1)
    found: dict[str, Any] = {
        "split": {
            "relative_error": parts.error,
            "examples_above_zero": sum(part > 0 for part in parts.parts),
            "examples": len(parts.parts),
            "gain_of_splitting_good_from_bad": _split_gain(parts.parts, parts.whole),
        },
        "null_contributor": {
            "score": {scorer: null.net[scorer].get(NOBODY, 0.0) for scorer in SCORERS},
            "pay": {scorer: pay(null, scorer, (NOBODY,), "net", PPM) for scorer in SCORERS},
        },
        "retrained": _retrained(market),
    }
    for scorer in SCORERS:
        net = honest.net[scorer]
        found[scorer] = {
            "base_predicted": {
                "net_of_all_absolute": net[text.PREDICTED] / sum(abs(score) for score in net.values()),
                "pay_ppm": round(PPM * pay(honest, scorer, (text.PREDICTED,), "net", PPM)),
            },
            "order_permuted": _agreement(honest, order, scorer, attacker),
            "another_seed": _agreement(honest, seed, scorer, attacker),
        }
    return found


def _retrained(market: Market) -> dict[str, Any]:
    """Retraining as the judge: by how much the summed margin of the honest adapter's answers falls without each one.

    Adapter and retrained ones have different seeds. Pay is the part above zero of the mean over seeds.
    """
    worlds = {seed: market.world(market.honest, seed=seed) for seed in RETRAINING_SEEDS}
    texts = market.world(market.honest).answers(market.prompts, MAX_NEW_TOKENS)
    every = {seed: world.margin(texts) for seed, world in worlds.items()}
    effects: dict[str, list[float]] = {}
    for left in market.turns:
        rest = [(name, turns) for name, turns in market.honest if name != left]
        effects[left] = [every[seed] - market.world(rest, seed=seed).margin(texts) for seed in RETRAINING_SEEDS]
    means = {name: sum(values) / len(values) for name, values in effects.items()}
    positive = sum(max(value, 0.0) for value in means.values()) or 1.0
    return {
        name: {
            "effect": [round(value, 3) for value in effects[name]],
            "pay_ppm": round(PPM * max(means[name], 0.0) / positive),
        }
        for name in effects
    }


def _split_gain(parts: Sequence[float], whole: float) -> float | None:
    """What counts of a contributor who puts good and bad examples under two names, over what counted before, less 1."""
    return round(sum(max(part, 0.0) for part in parts) / whole - 1, 4) if whole > 0 else None


def _renamed(owed: Owed, renamed: Mapping[str, str]) -> Owed:
    """The same, under the former names."""
    back = {new: old for old, new in renamed.items()}
    tables = {
        kind: {scorer: {back[name]: score for name, score in table.items()} for scorer, table in tables.items()}
        for kind, tables in (("net", owed.net), ("clipped", owed.clipped))
    }
    return Owed(owed.version, {back[name]: tokens for name, tokens in owed.tokens.items()}, **tables)


def _agreement(a: Owed, b: Owed, scorer: str, attacker: str) -> dict[str, float]:
    """How two runs agree on the contributors' totals, and how much the attacker's pay differs."""
    names = sorted(a.net[scorer])
    totals = np.array([[owed.net[scorer][name] for name in names] for owed in (a, b)])
    before, after = (pay(owed, scorer, (attacker,), "net", PPM) for owed in (a, b))
    return {
        "pearson": round(float(np.corrcoef(totals)[0, 1]), 4),
        "spearman": round(float(np.corrcoef(totals.argsort(1).argsort(1))[0, 1]), 4),
        "attackers_gain": round(after / before - 1, 4),
    }
