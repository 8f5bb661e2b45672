"""Axioms and attacks, measured: what a contributor can do to be paid more, and what that earns with each defence.

A small market (adapters/bench/attack_texts.py) is trained on once as it is, and once for every attack with and without
the Datanet's near-duplicate check. Each adapter answers the same held-out questions; its own answers are scored by the
exact scorers, and the contributors' part is divided by the formula of settlement (metering/shares.py). The gain of an
attack is what the attacker's accounts get after it, relative to what the attacker got without it, by the same formula:

    undefended      near duplicates accepted; per token, scores below zero count as zero
    checked         near duplicates set aside
    netted          scores are netted over the window before anything is made non-negative: what settlement does
    defended        both

The attacker is the source with the median pay among those that every scorer pays; the victim of a copier is the best
paid of the other sources. Rows of no attack say what honest new examples earn, where an attack reuses old ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.bench import attack_texts
from adapters.bench.attack_market import FIDELITIES_PPM, MAX_NEW_TOKENS, SCORERS, Market, pay
from adapters.bench.attack_world import Owed
from adapters.bench.axioms import measured_axioms
from adapters.bench.errors import UnknownAttack
from adapters.bench.near_duplicate_rates import near_duplicate_rates
from adapters.bench.uploads import ATTACKS, HONEST, Attack, Uploads
from adapters.near_duplicates import ACCEPT, SET_ASIDE
from adapters.training.progress import Progress, silent
from metering.shares import PPM

DEFENCES = {
    "undefended": (ACCEPT, "clipped"),
    "checked": (SET_ASIDE, "clipped"),
    "netted": (ACCEPT, "net"),
    "defended": (SET_ASIDE, "net"),
}
ALLOWED_GAIN = 0.2


def run_attacks(
    work_dir: Path,
    base_dir: Path,
    cache_dir: Path,
    names: Sequence[str] = (*ATTACKS, *HONEST),
    attacker: str | None = None,
    with_axioms: bool = True,
    thread_count: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The report on the attacks of these names by a source, and on the axioms unless they are left out.

    Raises PackagesUnreachable, UnknownAttack.
    """
    if not set(names) <= {*ATTACKS, *HONEST} or attacker not in (None, *attack_texts.SOURCES):
        known = "; ".join((*ATTACKS, *HONEST))
        raise UnknownAttack(f"attacks are {known}; attackers {', '.join(attack_texts.SOURCES)}")
    market = Market(work_dir, base_dir, cache_dir, thread_count, progress)
    honest = market.owed(market.honest)
    paid = {name: pay(honest, SCORERS[0], (name,), "net", PPM) for name in attack_texts.SOURCES}
    earning = [name for name in paid if all(honest.net[scorer][name] > 0 for scorer in SCORERS)]
    ranked = sorted(earning or paid, key=lambda name: paid[name])
    attacker = attacker or ranked[(len(ranked) - 1) // 2]
    victim = max((name for name in paid if name != attacker), key=lambda name: paid[name])
    axioms = measured_axioms(market, honest, attacker) if with_axioms else None
    uploads = Uploads(market, attacker, victim)
    return {
        "type": "attribution-attacks",
        "setting": {
            "config": market.config.record(),
            "contributors": list(market.turns),
            "examples_each": len(market.turns[attacker]),
            "prompts": len(market.prompts),
            "max_new_tokens": MAX_NEW_TOKENS,
            "scorers": list(SCORERS),
            "fidelities_ppm": list(FIDELITIES_PPM),
        },
        "attacker": attacker,
        "victim": victim,
        "honest": {
            scorer: {
                name: {"net": round(score, 3), "paid_ppm": round(PPM * pay(honest, scorer, (name,), "net", PPM))}
                for name, score in honest.net[scorer].items()
            }
            for scorer in SCORERS
        },
        "axioms": axioms,
        "attacks": [_judged(market, uploads.attack(name), honest) for name in names],
        "near_duplicates": near_duplicate_rates(cache_dir),
    }


def _judged(market: Market, attack: Attack, honest: Owed) -> dict[str, Any]:
    """What an attack earns: by scorer, fidelity and defence, before and after in ppm of the contributors' money."""
    after = {choice: market.owed(attack.given, choice) for choice in (ACCEPT, SET_ASIDE)}
    offered = sum(len(turns) for _, turns in attack.given)
    version = market.world(attack.given)
    kept = json.loads((version.export / "version.json").read_text())["examples"]
    earned: dict[str, Any] = {}
    for scorer in SCORERS:
        for fidelity_ppm in FIDELITIES_PPM:
            row = earned.setdefault(scorer, {}).setdefault(str(fidelity_ppm), {})
            for defence, (choice, kind) in DEFENCES.items():
                before = pay(honest, scorer, attack.accounts, kind, fidelity_ppm)
                now = pay(after[choice], scorer, attack.accounts, kind, fidelity_ppm)
                row[defence] = {"before_ppm": round(PPM * before), "after_ppm": round(PPM * now)}
                row[defence]["gain"] = round(now / before - 1, 4) if before else None
    return {
        "name": attack.name,
        "accounts": list(attack.accounts),
        "offered": offered,
        "set_aside": offered - kept,
        "earned": earned,
    }


def attacks_table(report: Mapping[str, Any]) -> str:
    """For the terminal: gains in percent, by scorer and fidelity."""
    lines = []
    for scorer in SCORERS:
        for fidelity in FIDELITIES_PPM:
            lines.append(f"\n{scorer}, f = {fidelity / PPM:.3f}".ljust(45) + "".join(f"{d:>12}" for d in DEFENCES))
            for row in report["attacks"]:
                cells = row["earned"][scorer][str(fidelity)]
                lines.append(row["name"].ljust(44) + "".join(f"{_cell(cells[d]):>12}" for d in DEFENCES))
    missed = [
        f"{row['name']} ({scorer}, f = {fidelity / PPM:.3f})"
        for row in report["attacks"]
        if row["name"] in ATTACKS
        for scorer in SCORERS
        for fidelity in FIDELITIES_PPM
        if _too_much(row["earned"][scorer][str(fidelity)]["defended"])
    ]
    lines.append(f"\nabove {ALLOWED_GAIN:.0%} in spite of both defences: {', '.join(missed) or 'none'}")
    return "\n".join([*lines, json.dumps(report["axioms"], indent=1)])


def _too_much(cell: Mapping[str, Any]) -> bool:
    """Whether a gain is above what is allowed; from nothing, everything is."""
    return cell["after_ppm"] > (1 + ALLOWED_GAIN) * cell["before_ppm"]


def _cell(cell: Mapping[str, Any]) -> str:
    if cell["gain"] is None:  # nothing before: what it comes to, of all contributors' money
        return f"to {cell['after_ppm'] / PPM:.1%}"
    return f"{cell['gain']:+.0%}"
