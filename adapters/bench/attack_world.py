"""A Datanet, the adapter trained on it, and what its contributors are owed: one world of adapters/bench/attacks.py."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.bench.attack_texts import Turn, contributions
from adapters.canonical import canonical_json
from adapters.demo.export import write_export
from adapters.digests import digest, file_digest
from adapters.near_duplicates import SET_ASIDE
from adapters.package import WEIGHTS
from adapters.training.checkpoint import read_checkpoint
from adapters.training.config import TrainingConfig
from adapters.training.dataset import TokenDataset, load_dataset, load_tokenizer
from adapters.training.generate import greedy
from adapters.training.gradients import Capture
from adapters.training.kronecker import curvature, ekfac_scorer
from adapters.training.model import AdaptedModel, HiddenCache, load_adapted
from adapters.training.observe import Readout, observe
from adapters.training.packs import Pack, common_prefix, make_packs
from adapters.training.progress import Progress, silent
from adapters.training.scorers import DirectionScorer, Scorer
from adapters.training.threads import threads
from adapters.training.tokens import TokenExample, chat_prompt
from adapters.training.train import train_adapter
from adapters.training.work import work_dir

Given = Sequence[tuple[str, Sequence[Turn]]]
"""(contributor, turns) of each contribution, in the order of the acts."""
DAMPING = 1.0


@dataclass(frozen=True)
class Owed:
    """What a window of traffic says of each contributor of a world, by scorer.

    `net` is the sum of the scores of all generated tokens, `clipped` the sum of those above zero, both in nats;
    `tokens` what was learnt of each contributor: the default of declared shares.
    """

    version: str
    tokens: dict[str, int]
    net: dict[str, dict[str, float]]
    clipped: dict[str, dict[str, float]]


class World:
    """One Datanet and its adapter in a directory of the benchmark's: what is there already is used again."""

    def __init__(
        self,
        directory: Path,
        base_dir: Path,
        given: Given,
        config: TrainingConfig,
        *,
        near_duplicates: str = SET_ASIDE,
        seed: int = 0,
        progress: Progress = silent,
    ) -> None:
        """Makes the Datanet's version. The directory is named by the version, the seed and the settings."""
        self._base_dir, self._config, self._seed, self._progress = base_dir, config, seed, progress
        drafts = directory / "versions"
        asked = digest(
            canonical_json([near_duplicates, [[name, [list(turn) for turn in turns]] for name, turns in given]])
        )
        self.export = drafts / asked[7:23]
        if not self.export.exists():
            write_export("attacked", contributions(given), self.export, near_duplicates)
        self.version = json.loads((self.export / "version.json").read_text())["version"]
        name = digest(canonical_json([self.version, seed, config.record()]))[7:23]
        self.directory = directory / name

    @property
    def package(self) -> Path:
        """The trained adapter."""
        package = self.directory / "package"
        if not package.exists():
            train_adapter(
                self.export,
                self._base_dir,
                package,
                seed=self._seed,
                config=self._config,
                trainer="demo",
                host="demo",
                progress=self._progress,
            )
        return package

    def load(self) -> tuple[AdaptedModel, TokenDataset, Any]:
        """The model (fp32), the Datanet's tokens and the tokenizer."""
        tokenizer = load_tokenizer(self._base_dir)
        return load_adapted(self._base_dir, self.package), load_dataset(self.export, tokenizer), tokenizer

    def owed(self, prompts: Sequence[str], max_new_tokens: int) -> Owed:
        """Scores of the adapter's own greedy answers to the prompts; kept in the world's directory."""
        kept = self.directory / "owed.json"
        if not kept.exists():
            with threads(self._config.threads):
                content = json.dumps(vars(self._measure(prompts, max_new_tokens)), indent=1)
            kept.with_suffix(".tmp").write_text(content)
            kept.with_suffix(".tmp").rename(kept)
        return Owed(**json.loads(kept.read_text()))

    def answers(self, prompts: Sequence[str], max_new_tokens: int) -> list[TokenExample]:
        """What the adapter says to each prompt; kept in the world's directory."""
        kept = self.directory / "answers.json"
        if not kept.exists():
            with threads(self._config.threads):
                model, _, tokenizer = self.load()
                found = answers(model, tokenizer, prompts, max_new_tokens)
            kept.write_text(json.dumps([[example.ids, example.supervised] for example in found]))
        return [TokenExample(0, tuple(ids), tuple(learnt)) for ids, learnt in json.loads(kept.read_text())]

    def margin(self, texts: Sequence[TokenExample]) -> float:
        """Summed margins of the texts' supervised tokens under the adapter, in nats; kept by the texts."""
        known = digest(canonical_json([list(text.ids) for text in texts]))[7:23]
        kept = self.directory / f"margin-{known}.json"
        if not kept.exists():
            with threads(self._config.threads):
                model, _, _ = self.load()
                found = observe(model, Readout(model.causal_lm), texts, []).margin
            kept.write_text(json.dumps(float(found.double().sum())))
        return float(json.loads(kept.read_text()))

    def _measure(self, prompts: Sequence[str], max_new_tokens: int) -> Owed:
        model, data, tokenizer = self.load()
        weights = file_digest(self.package / WEIGHTS)
        saved = read_checkpoint(work_dir(self.package) / "trace.safetensors", weights)
        assert saved is not None
        trace = DirectionScorer("trace", saved[0]["trace"].float())
        ekfac = ekfac_scorer(model, data, DAMPING, self._progress)
        scores = scored(model, answers(model, tokenizer, prompts, max_new_tokens), [ekfac, trace])
        return Owed(
            version=self.version,
            tokens={name: count["tokens"] for name, count in data.counts().items()},
            net={name: by_name(data, table.sum(0)) for name, table in scores.items()},
            clipped={name: by_name(data, table.clamp_min(0).sum(0)) for name, table in scores.items()},
        )


def answers(model: AdaptedModel, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int) -> list[TokenExample]:
    """What the adapter says to each prompt."""
    asked = [chat_prompt([{"role": "user", "content": prompt}], tokenizer) for prompt in prompts]
    return greedy(model, tokenizer, asked, max_new_tokens)


def scored(model: AdaptedModel, texts: Sequence[TokenExample], scorers: Sequence[Scorer]) -> dict[str, Tensor]:
    """Scores [N, C] of all supervised tokens of the texts, by scorer, in nats; fp64."""
    readout = Readout(model.causal_lm)
    return {name: table.double() for name, table in observe(model, readout, texts, scorers).scores.items()}


def by_name(data: TokenDataset, totals: Tensor) -> dict[str, float]:
    return dict(zip(data.contributors, totals.tolist(), strict=True))


def gradient_totals(model: AdaptedModel, cache: HiddenCache, batches: Sequence[Sequence[Pack]], owners: int) -> Tensor:
    """Gradients of the summed log likelihood [owners, P] of each owner's examples."""
    totals = torch.zeros(owners, model.parameter.numel())
    for batch in batches:
        hidden, layout = cache.batch(batch)
        with Capture(model) as capture:
            _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
            (-torch.nn.functional.cross_entropy(logits, layout.target, reduction="sum")).backward()
        totals += capture.by_owner(torch.tensor([pack.owner for pack in batch]), owners)
    return totals


@dataclass(frozen=True)
class Parts:
    """One contributor's examples scored one by one, and as one, with the same curvature."""

    parts: list[float]
    whole: float
    error: float
    """Largest difference over tokens between the parts' sum and the whole, relative to the largest whole."""


def scored_in_parts(world: World, contributor: str, prompts: Sequence[str], max_new_tokens: int) -> Parts:
    """EK-FAC scores of a contributor and of each of their examples as if each had an owner of its own; kept."""
    kept = world.directory / f"parts-{contributor}.json"
    if not kept.exists():
        kept.write_text(json.dumps(vars(_parts(world, contributor, prompts, max_new_tokens))))
    return Parts(**json.loads(kept.read_text()))


def _parts(world: World, contributor: str, prompts: Sequence[str], max_new_tokens: int) -> Parts:
    model, data, tokenizer = world.load()
    owner, count = data.contributors.index(contributor), len(data.contributors)
    own = [number for number, example in enumerate(data.examples) if example.owner == owner]
    place = {number: count + part for part, number in enumerate(own)}
    examples = [
        replace(example, owner=place.get(number, example.owner)) for number, example in enumerate(data.examples)
    ]
    cache = HiddenCache(model, examples, common_prefix(examples))
    packs = make_packs(examples, cache.prefix, 160, random.Random(0))
    batches = [packs[at : at + 2] for at in range(0, len(packs), 2)]
    totals = gradient_totals(model, cache, batches, count + len(own))
    found = curvature(model, cache, batches)
    parts = found.corrected(model, totals[count:], DAMPING) / len(examples)
    whole = found.corrected(model, totals[count:].sum(0, keepdim=True), DAMPING) / len(examples)
    texts = answers(model, tokenizer, prompts, max_new_tokens)
    tables = scored(model, texts, [DirectionScorer("parts", parts), DirectionScorer("whole", whole)])
    error = (tables["parts"].sum(1) - tables["whole"][:, 0]).abs().max() / tables["whole"].abs().max()
    return Parts(tables["parts"].sum(0).tolist(), float(tables["whole"].sum()), float(error))
