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
paid of the other sources.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.bench import attack_texts, text
from adapters.bench.attack_models import outlier_attack, shadow_attack
from adapters.bench.attack_texts import Turn, duplicates, paraphrases
from adapters.bench.attack_world import Given, Owed, World, scored_in_parts
from adapters.bench.errors import UnknownAttack
from adapters.bench.machine import fast_dtype
from adapters.bench.near_duplicate_rates import near_duplicate_rates
from adapters.canonical import canonical_json
from adapters.digests import digest
from adapters.near_duplicates import ACCEPT, SET_ASIDE
from adapters.training.config import TrainingConfig
from adapters.training.progress import Progress, silent
from metering.shares import PPM, share_weights

SCORERS = ("ekfac", "trace")
DEFENCES = {
    "undefended": (ACCEPT, "clipped"),
    "checked": (SET_ASIDE, "clipped"),
    "netted": (ACCEPT, "net"),
    "defended": (SET_ASIDE, "net"),
}
REALISTIC_PPM = 319_000
"""Fidelity of the demo's real-text adapter: docs/ATTRIBUTION.md section 8."""
FIDELITIES_PPM = (PPM, REALISTIC_PPM)
SECOND, COPIER = "second-name", "copier"
MAX_NEW_TOKENS = 16
LAYERS = 4
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
"""Half the layers of the demo, and no module of 1,536 outputs: a run is trained and scored in about a minute."""
ALLOWED_GAIN = 0.2


@dataclass(frozen=True)
class Attack:
    """An attack: all contributions in their order, and the accounts whose pay is the attacker's."""

    name: str
    given: Given
    accounts: tuple[str, ...]


ATTACKS = (
    "own examples 2x",
    "own examples 4x",
    "own examples 8x",
    "own examples 2x, second name",
    "own examples 2x, paraphrased",
    "split in two names",
    "outlier attack",
    "shadow attack",
    "another's examples",
    "another's examples, paraphrased",
)


class Benchmark:
    """Runs of one setting, kept under a directory; a run that is there already is used again."""

    def __init__(self, work_dir: Path, base_dir: Path, cache_dir: Path, thread_count: int, progress: Progress) -> None:
        self._work, self._base, self._cache, self._threads = work_dir, base_dir, cache_dir, thread_count
        self._progress = progress
        self.config = TrainingConfig(
            max_epochs=3, layers=LAYERS, target_modules=MODULES, threads=thread_count, dtype=fast_dtype()
        )
        self.market = attack_texts.market(cache_dir)
        self.prompts = [asked.prompt for asked in attack_texts.market_questions(cache_dir)]
        self.honest: Given = list(self.market.items())

    def world(self, given: Given, near_duplicates: str = SET_ASIDE, seed: int = 0) -> World:
        return World(
            self._work,
            self._base,
            given,
            self.config,
            near_duplicates=near_duplicates,
            seed=seed,
            progress=self._progress,
        )

    def owed(self, given: Given, near_duplicates: str = SET_ASIDE, seed: int = 0) -> Owed:
        return self.world(given, near_duplicates, seed).owed(self.prompts, MAX_NEW_TOKENS)

    def attack(self, name: str, attacker: str, victim: str) -> Attack:
        """One attack of ATTACKS by name."""
        own, theirs = self.market[attacker], self.market[victim]
        rest = [(other, turns) for other, turns in self.honest if other != attacker]
        half = len(own) // 2
        uploads: dict[str, Callable[[], list[tuple[str, Sequence[Turn]]]]] = {
            "own examples 2x": lambda: [(attacker, own), (attacker, duplicates(own, 2))],
            "own examples 4x": lambda: [(attacker, own), (attacker, duplicates(own, 4))],
            "own examples 8x": lambda: [(attacker, own), (attacker, duplicates(own, 8))],
            "own examples 2x, second name": lambda: [(attacker, own), (SECOND, duplicates(own, 2))],
            "own examples 2x, paraphrased": lambda: [(attacker, own), (attacker, self._paraphrased(own))],
            "split in two names": lambda: [(attacker, own[:half]), (SECOND, own[half:])],
            "outlier attack": lambda: [(attacker, self._kept("outlier", own, self._outlier))],
            "shadow attack": lambda: [(attacker, self._kept("shadow", own, self._shadow))],
            "another's examples": lambda: [(attacker, own), (COPIER, duplicates(theirs, 2))],
            "another's examples, paraphrased": lambda: [(attacker, own), (COPIER, self._paraphrased(theirs))],
        }
        uploaded = uploads[name]()
        accounts = (COPIER,) if name.startswith("another's") else tuple(dict(uploaded))
        return Attack(name, [*rest, *uploaded], accounts)

    def _paraphrased(self, turns: Sequence[Turn]) -> list[Turn]:
        return paraphrases(turns, attack_texts.wordnet_synonyms(self._cache))

    def _outlier(self, own: Sequence[Turn]) -> list[Turn]:
        words = sorted({word for turns in self.market.values() for _, answer in turns for word in answer.split()})
        return outlier_attack(self.world(self.honest), own, words, self._threads)

    def _shadow(self, own: Sequence[Turn]) -> list[Turn]:
        given, queries = attack_texts.shadow_market(self._cache)
        return shadow_attack(self.world(list(given.items())), queries, own, self._threads)

    def _kept(self, name: str, own: Sequence[Turn], make: Callable[[Sequence[Turn]], list[Turn]]) -> list[Turn]:
        """The changed turns, made once."""
        known = digest(canonical_json([self.config.record(), [list(turn) for turn in own]]))[7:23]
        path = self._work / f"{name}-{known}.json"
        if not path.exists():
            content = json.dumps(make(own), indent=1)
            path.with_suffix(".tmp").write_text(content)
            path.with_suffix(".tmp").rename(path)
        return [(asked, answer) for asked, answer in json.loads(path.read_text())]


def run_attacks(
    work_dir: Path,
    base_dir: Path,
    cache_dir: Path,
    names: Sequence[str] = ATTACKS,
    attacker: str | None = None,
    with_axioms: bool = True,
    thread_count: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The report on the attacks of these names by a source, and on the axioms unless they are left out.

    Raises PackagesUnreachable, UnknownAttack.
    """
    if not set(names) <= set(ATTACKS) or attacker not in (None, *attack_texts.SOURCES):
        raise UnknownAttack(f"attacks are {'; '.join(ATTACKS)}; attackers {', '.join(attack_texts.SOURCES)}")
    bench = Benchmark(work_dir, base_dir, cache_dir, thread_count, progress)
    honest = bench.owed(bench.honest)
    paid = {name: pay(honest, SCORERS[0], (name,), "net", PPM) for name in attack_texts.SOURCES}
    earning = [name for name in paid if all(honest.net[scorer][name] > 0 for scorer in SCORERS)]
    ranked = sorted(earning or paid, key=lambda name: paid[name])
    attacker = attacker or ranked[(len(ranked) - 1) // 2]
    victim = max((name for name in paid if name != attacker), key=lambda name: paid[name])
    axioms = _axioms(bench, honest, attacker) if with_axioms else None
    attacks = [_judged(bench, bench.attack(name, attacker, victim), honest) for name in names]
    return {
        "type": "attribution-attacks",
        "setting": {
            "config": bench.config.record(),
            "contributors": list(bench.market),
            "examples_each": len(bench.market[attacker]),
            "prompts": len(bench.prompts),
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
        "attacks": attacks,
        "near_duplicates": near_duplicate_rates(cache_dir),
    }


def pay(owed: Owed, scorer: str, accounts: Sequence[str], kind: str, fidelity_ppm: int) -> float:
    """The part of the contributors' money that the accounts get."""
    table = {"net": owed.net, "clipped": owed.clipped}[kind][scorer]
    weights = share_weights({name: round(1e6 * score) for name, score in table.items()}, owed.tokens, fidelity_ppm)
    return sum(weights.get(name, 0) for name in accounts) / sum(weights.values())


def _judged(bench: Benchmark, attack: Attack, honest: Owed) -> dict[str, Any]:
    """What an attack earns: by scorer, fidelity and defence, before and after in ppm of the contributors' money."""
    after = {choice: bench.owed(attack.given, choice) for choice in (ACCEPT, SET_ASIDE)}
    offered = sum(len(turns) for _, turns in attack.given)
    version = bench.world(attack.given)
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


def _axioms(bench: Benchmark, honest: Owed, attacker: str) -> dict[str, Any]:
    """Split-neutrality, null and base-predicted contributors, the order of training, and splitting good from bad."""
    parts = scored_in_parts(bench.world(bench.honest), attacker, bench.prompts, MAX_NEW_TOKENS)
    copies = duplicates(bench.market[attacker], 2)
    null = bench.owed([*bench.honest, (COPIER, copies)])
    names = sorted(bench.market)
    renamed = {name: f"{len(names) - rank:02d}-{name}" for rank, name in enumerate(names)}
    order = _renamed(bench.owed([(renamed[name], turns) for name, turns in bench.honest]), renamed)
    seed = bench.owed(bench.honest, seed=1)
    found: dict[str, Any] = {
        "split": {
            "relative_error": parts.error,
            "examples_above_zero": sum(part > 0 for part in parts.parts),
            "examples": len(parts.parts),
            "gain_of_splitting_good_from_bad": _split_gain(parts.parts, parts.whole),
        },
        "null_contributor": {
            "score": {scorer: null.net[scorer].get(COPIER, 0.0) for scorer in SCORERS},
            "pay": {scorer: pay(null, scorer, (COPIER,), "net", PPM) for scorer in SCORERS},
        },
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
