"""The market of adapters/bench/attacks.py and axioms.py: its contributors, questions and worlds, and what they pay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters.bench import attack_texts
from adapters.bench.attack_world import Given, Owed, World
from adapters.bench.machine import fast_dtype
from adapters.near_duplicates import SET_ASIDE
from adapters.training.config import TrainingConfig
from adapters.training.progress import Progress
from metering.shares import PPM, share_weights

SCORERS = ("ekfac", "trace")
REALISTIC_PPM = 319_000
"""Fidelity of the demo's real-text adapter: docs/ATTRIBUTION.md section 8."""
FIDELITIES_PPM = (PPM, REALISTIC_PPM)
MAX_NEW_TOKENS = 16
LAYERS = 4
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
"""Half the layers of the demo, and no module of 1,536 outputs: a run is trained and scored in about a minute."""


class Market:
    """Runs of one setting, kept under a directory; a run that is there already is used again."""

    def __init__(self, work_dir: Path, base_dir: Path, cache_dir: Path, thread_count: int, progress: Progress) -> None:
        self.work_dir, self.cache_dir, self._base = work_dir, cache_dir, base_dir
        self._progress = progress
        self.config = TrainingConfig(
            max_epochs=3, layers=LAYERS, target_modules=MODULES, threads=thread_count, dtype=fast_dtype()
        )
        self.turns = attack_texts.market(cache_dir)
        self.prompts = [asked.prompt for asked in attack_texts.market_questions(cache_dir)]
        self.honest: Given = list(self.turns.items())

    def world(self, given: Given, near_duplicates: str = SET_ASIDE, seed: int = 0) -> World:
        return World(
            self.work_dir,
            self._base,
            given,
            self.config,
            near_duplicates=near_duplicates,
            seed=seed,
            progress=self._progress,
        )

    def owed(self, given: Given, near_duplicates: str = SET_ASIDE, seed: int = 0) -> Owed:
        return self.world(given, near_duplicates, seed).owed(self.prompts, MAX_NEW_TOKENS)


def pay(owed: Owed, scorer: str, accounts: Sequence[str], kind: str, fidelity_ppm: int) -> float:
    """The part of the contributors' money that the accounts get."""
    table = {"net": owed.net, "clipped": owed.clipped}[kind][scorer]
    weights = share_weights({name: round(1e6 * score) for name, score in table.items()}, owed.tokens, fidelity_ppm)
    return sum(weights.get(name, 0) for name in accounts) / sum(weights.values())
