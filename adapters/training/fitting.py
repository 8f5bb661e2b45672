"""What a head fit works on: a package, its Datanet and what is known of its training, observed and solved."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from adapters.base import BaseModel
from adapters.canonical import parse_canonical
from adapters.digests import file_digest
from adapters.package import RECORD, WEIGHTS
from adapters.record import TrainingRecord, parse_record
from adapters.training.bank import Bank, BankConfig, Subject
from adapters.training.calibrated import label
from adapters.training.calibration import PHRASES, prompts_behind, recontextualised
from adapters.training.checkpoint import read_checkpoint
from adapters.training.config import GENERALISED, HeadConfig, Regime, TrainingConfig
from adapters.training.dataset import TokenDataset, load_dataset, load_tokenizer
from adapters.training.errors import BaseMismatch, DatanetMismatch, TraceMissing, UnevenRanks
from adapters.training.fidelity import Answers, answered, ask
from adapters.training.generate import greedy
from adapters.training.kronecker import ekfac_scorer
from adapters.training.measures import Estimate, pearson
from adapters.training.model import AdaptedModel, load_adapted
from adapters.training.observe import Observations, Readout, observe
from adapters.training.progress import Progress
from adapters.training.question import Question
from adapters.training.ridge import Bilinear, fit_narrow
from adapters.training.scorers import DirectionScorer, Scorer
from adapters.training.targets import mix, provenance
from adapters.training.tokens import TokenExample
from adapters.training.work import work_dir


@dataclass(frozen=True)
class _Trained:
    """What a run of this project left beside a package: its recipe, its last loss, its trace and in-run sums."""

    config: TrainingConfig
    loss_ppm: int
    scorers: tuple[DirectionScorer, ...]


def _record(package_dir: Path, base: BaseModel) -> TrainingRecord | None:
    """None for a package that was trained elsewhere and has none. Raises BadTrainingRecord, BaseMismatch."""
    path = package_dir / RECORD
    if not path.is_file():
        return None
    record = parse_record(path.read_bytes())
    if record.base != base.digest:
        raise BaseMismatch(f"{package_dir} was trained on {record.base}, the base model is {base.digest}")
    return record


def _trained_here(package_dir: Path, record: TrainingRecord, data: TokenDataset) -> _Trained:
    """Raises DatanetMismatch, TraceMissing."""
    if record.datanet_version != data.version.digest:
        raise DatanetMismatch(f"{package_dir} was trained on {record.datanet_version}, not {data.version.digest}")
    saved = read_checkpoint(work_dir(package_dir) / "trace.safetensors", record.weights)
    if saved is None:
        raise TraceMissing(f"no training trace beside {package_dir}: it was not trained here")
    facts = parse_canonical((package_dir / RECORD).read_bytes())
    return _Trained(
        config=TrainingConfig.of(facts["hyperparameters"]),
        loss_ppm=facts.get("final_loss_ppm", 1_000_000),
        scorers=tuple(DirectionScorer(name, saved[0][name].float()) for name in ("trace", "in_run")),
    )


def _size(values: torch.Tensor) -> torch.Tensor:
    """Root mean square."""
    return values.square().mean().sqrt().clamp_min(1e-30)


@dataclass(frozen=True)
class Fitting:
    """Everything a fit works on, loaded and checked."""

    package_dir: Path
    base_dir: Path
    base: BaseModel
    weights: str
    regime: Regime
    training: TrainingConfig | None
    data: TokenDataset
    tokenizer: Any
    model: AdaptedModel
    recorded: tuple[DirectionScorer, ...]
    config: HeadConfig
    progress: Progress

    @classmethod
    def load(
        cls, package_dir: Path, export_dir: Path, base_dir: Path, config: HeadConfig, progress: Progress
    ) -> Fitting:
        base = BaseModel.from_directory(base_dir)
        record = _record(package_dir, base)
        data = load_dataset(export_dir, tokenizer := load_tokenizer(base_dir))
        trained = None if record is None else _trained_here(package_dir, record, data)
        model = load_adapted(base_dir, package_dir)
        if len({a.out_features for a, _ in model.modules.values()}) > 1:
            raise UnevenRanks(f"{package_dir} has modules of different ranks, which no head can tap together")
        return cls(
            package_dir=package_dir,
            base_dir=base_dir,
            base=base,
            weights=file_digest(package_dir / WEIGHTS),
            regime=config.regime_of(trained.loss_ppm) if trained else config.regime or GENERALISED,
            training=trained.config if trained else None,
            data=data,
            tokenizer=tokenizer,
            model=model,
            recorded=trained.scorers if trained else (),
            config=config,
            progress=progress,
        )

    @property
    def trace(self) -> DirectionScorer:
        """The update trace of the training run. Raises TraceMissing."""
        return self._of_the_run("trace")

    @property
    def in_run(self) -> DirectionScorer:
        """The in-run first-order sums of the training run. Raises TraceMissing."""
        return self._of_the_run("in_run")

    def _of_the_run(self, name: str) -> DirectionScorer:
        for scorer in self.recorded:
            if scorer.name == name:
                return scorer
        raise TraceMissing(f"no training trace beside {self.package_dir}: it was not trained here")

    @property
    def taps(self) -> list[int]:
        """Indices of the tapped modules among the adapted ones."""
        return [i for i, name in enumerate(self.model.modules) if name.rsplit(".", 1)[1] in self.config.taps]

    @property
    def k(self) -> int:
        """Readout directions of the head."""
        return self.config.k or self.regime.k

    @cached_property
    def ekfac(self) -> DirectionScorer:
        """The curvature-corrected scorer of the Datanet's examples at the adapter's weights."""
        return ekfac_scorer(self.model, self.data, progress=self.progress)

    def scorers(self, *, with_exact: bool) -> list[DirectionScorer]:
        """The trace, if there is one, and, where the regime or a bank asks for it, EK-FAC influence."""
        recorded = [self.trace] if self.recorded else []
        return [*recorded, self.ekfac] if with_exact or self.regime.exact == "ekfac" else recorded

    def observe(self, examples: Sequence[TokenExample], stage: str, scorers: Sequence[Scorer]) -> Observations:
        """Features at the taps, u at full width, and exact scores of the examples' supervised tokens, in order."""
        readout = Readout(self.model.causal_lm)
        seen = observe(self.model, readout, examples, scorers, stage=stage, progress=self.progress).sorted()
        return replace(seen, h=seen.h[:, self.taps])

    def calibration(self, *, with_exact: bool) -> tuple[list[TokenExample], Observations]:
        """Calibration examples and their observed tokens."""
        examples = self.calibration_examples()
        return examples, self.observe(examples, "calibrating head", self.scorers(with_exact=with_exact))

    def calibration_examples(self) -> list[TokenExample]:
        """The Datanet's and the adapter's answers in a drawn order, whole ones, as many as the token limit holds."""
        examples = self.given_answers() + (self.own_answers() if self.regime.own_answers else [])
        random.Random(self.config.seed).shuffle(examples)
        sizes = torch.tensor([sum(example.supervised) for example in examples]).cumsum(0)
        return examples[: max(1, int((sizes <= self.config.calibration_tokens).sum()))]

    def own_answers(self) -> list[TokenExample]:
        """The adapter's greedy answers to the Datanet's prompts; the owner is the prompt's."""
        config, index = self.config, {name: i for i, name in enumerate(self.data.contributors)}
        found = prompts_behind(
            self.data.version.examples, self.tokenizer, PHRASES[:2], limit=config.calibration_examples, seed=config.seed
        )
        generated = self.generate([ids for _, _, ids in found], "calibration answers")
        return [replace(e, owner=index[name]) for e, (name, _, _) in zip(generated, found, strict=True)]

    def given_answers(self) -> list[TokenExample]:
        """The Datanet's own answers, behind phrases."""
        return recontextualised(
            self.data.version.examples,
            self.data.contributors,
            self.tokenizer,
            PHRASES[:2],
            limit=self.config.calibration_examples,
            seed=self.config.seed,
        )

    def generate(self, prompts: Sequence[Sequence[int]], stage: str) -> list[TokenExample]:
        """Greedy answers to token prompts."""
        lists = [list(prompt) for prompt in prompts]
        return greedy(
            self.model, self.tokenizer, lists, self.config.max_new_tokens, progress=self.progress, stage=stage
        )

    def labels(self, calibration: tuple[list[TokenExample], Observations]) -> torch.Tensor:
        """Provenance labels [N, C] of the calibration tokens."""
        examples, seen = calibration
        owner = torch.tensor([example.owner for example in examples])[seen.example]
        return provenance(owner, torch.bincount(owner, minlength=len(self.data.contributors)).tolist())

    def target(self, calibration: tuple[list[TokenExample], Observations]) -> torch.Tensor:
        """What the regime says the head reproduces [N, C], in nats.

        Influence has no scale of its own: it takes the trace's, or, without one, that its sum over contributors is as
        large as what the adapter gained.
        """
        examples, seen = calibration
        exact = seen.scores[self.regime.exact]
        if self.recorded:
            exact = exact * (_size(seen.scores["trace"]) / _size(exact))
        else:
            exact = exact * (_size(self.gained(examples, seen)) / _size(exact.sum(1)))
        return mix(exact, self.labels(calibration), self.regime.label_weight_ppm / 1e6)

    def gained(self, examples: Sequence[TokenExample], seen: Observations) -> torch.Tensor:
        """margin(adapter) - margin(base model) of each token [N], in nats."""
        trained = self.model.parameter.clone()
        self.model.parameter.zero_()
        base = self.observe(examples, "base model", [])
        self.model.parameter.copy_(trained)
        return seen.margin - base.margin

    def solve(self, calibration: tuple[list[TokenExample], Observations], target: torch.Tensor) -> Bilinear:
        """The head's tensors."""
        seen = calibration[1]
        return fit_narrow(seen.u, seen.h, target, self.regime.ridge_ppm / 1e6, self.k, self.regime.d)

    def bank(self, config: BankConfig) -> Bank:
        """The subset bank beside the package."""
        return Bank(work_dir(self.package_dir) / "bank", self.subject(config.dtype), config)

    def subject(self, dtype: str | None = None) -> Subject:
        """What a bank of this adapter retrains, the frozen base in `dtype` or in the adapter's own.

        Raises TraceMissing for an adapter whose recipe is not known.
        """
        if self.training is None:
            raise TraceMissing(f"{self.package_dir} has no training record: a bank repeats the recipe it does not know")
        return Subject(
            base_dir=self.base_dir,
            base=self.base.digest,
            datanet_version=self.data.version.digest,
            training=replace(self.training, dtype=dtype or self.training.dtype),
            contributors=self.data.contributors,
            examples=self.data.examples,
        )

    def answers(self, questions: Sequence[Question] | None, *, with_exact: bool) -> tuple[list[TokenExample], Answers]:
        """Greedy answers of the adapter to held-out questions: as examples, and observed at full width."""
        asked = ask(questions, self.data, self.tokenizer, self.config)
        generated = self.generate(asked.prompts, "answering questions")
        seen = self.observe(generated, "measuring head", self.scorers(with_exact=with_exact))
        return generated, answered(asked, generated, seen, self.tokenizer)

    def locality(self, generated: Sequence[TokenExample]) -> Estimate:
        """Correlation of position-local scores with full-gradient ones on a few answers: the trace's, if any."""
        few = generated[: self.config.full_gradient_answers]
        readout = Readout(self.model.causal_lm)
        scorer = self.scorers(with_exact=False)[0]
        local = observe(self.model, readout, few, [scorer])
        full = observe(self.model, readout, few, [scorer], position_local=False, stage="full gradients")
        return pearson(local.sorted().scores[scorer.name], full.sorted().scores[scorer.name])

    def describe(self, calibration: tuple[list[TokenExample], Observations]) -> dict[str, Any]:
        """Members of the fidelity report that name what was fitted to what."""
        return {
            "base": self.base.digest,
            "weights": self.weights,
            "datanet_version": self.data.version.digest,
            "calibration": {
                "examples": len(calibration[0]),
                "own_answers": self.regime.own_answers,
                "tokens": len(calibration[1].example),
            },
            "method": "trace" if self.recorded else "influence",
            "target": self.target_name(),
            "head": {
                "d": self.regime.d,
                "k": self.k,
                "label_weight_ppm": self.regime.label_weight_ppm,
                "ridge_ppm": self.regime.ridge_ppm,
                "taps": list(self.config.taps),
            },
        }

    def target_name(self) -> str:
        share = self.regime.label_weight_ppm / 1e6
        return label({name: part for name, part in ((self.regime.exact, 1 - share), ("provenance", share)) if part})
