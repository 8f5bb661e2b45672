"""Fit the attribution head of a trained package and write its fidelity report."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from adapters.base import BaseModel
from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import digest, file_digest
from adapters.package import FIDELITY, HEAD, RECORD
from adapters.record import TrainingRecord, parse_record
from adapters.training.bank import Bank, BankConfig, Subject
from adapters.training.basis import readout_basis
from adapters.training.calibrated import BANK, Evidence, choose, folds, label
from adapters.training.calibration import PHRASES, prompts_behind, recontextualised
from adapters.training.checkpoint import read_checkpoint
from adapters.training.config import HeadConfig, Regime, TrainingConfig
from adapters.training.dataset import TokenDataset, load_dataset, load_tokenizer
from adapters.training.errors import BaseMismatch, DatanetMismatch, TraceMissing
from adapters.training.fidelity import Answers, answered, ask, fidelity_report
from adapters.training.fidelity_bank import fidelity_against
from adapters.training.generate import greedy
from adapters.training.head import AttributionHead
from adapters.training.kronecker import ekfac_scorer
from adapters.training.measures import Estimate, pearson
from adapters.training.model import AdaptedModel, load_adapted
from adapters.training.observe import Observations, Readout, observe
from adapters.training.outcomes import outcomes
from adapters.training.progress import Progress, silent
from adapters.training.question import Question
from adapters.training.ridge import fit_bilinear, fit_narrow
from adapters.training.scorers import DirectionScorer, Scorer
from adapters.training.subsets import LEFT_OUT
from adapters.training.targets import mix, provenance
from adapters.training.threads import threads
from adapters.training.tokens import TokenExample
from adapters.training.work import work_dir


@dataclass(frozen=True)
class FittedHead:
    """A head written beside the PEFT files of its package, and its fidelity report (canonical JSON values)."""

    head_path: Path
    head_digest: str
    fidelity: dict[str, Any]


def fit_head(
    package_dir: Path,
    export_dir: Path,
    base_dir: Path,
    *,
    config: HeadConfig | None = None,
    questions: Sequence[Question] | None = None,
    bank: BankConfig | None = None,
    progress: Progress = silent,
) -> FittedHead:
    """Fit `attribution_head.safetensors` and `fidelity.json` into `package_dir`.

    Calibrates on contexts the adapter was not trained on; reports the correlation with the exact scorers on the model's
    own greedy answers to `questions` (unseen ones; without them, to re-contextualised prompts of the Datanet that
    calibration did not use), and who owns them against the baselines. With `bank`, the subset bank beside the package
    is trained as far as it is missing, chooses what the head is fitted to, and measures its fidelity. Deterministic.
    Raises DatanetMismatch, BaseMismatch, TraceMissing, ExportMismatch, UnsupportedBase, BankMismatch, BankInterrupted.
    """
    config = config or HeadConfig()
    with threads(config.threads):
        fitting = Fitting.load(package_dir, export_dir, base_dir, config, progress)
        calibration = fitting.calibration(with_exact=bank is not None)
        generated, answers = fitting.answers(questions, with_exact=bank is not None)
        described = fitting.describe(calibration) | {"position_local_with_full": fitting.locality(generated).record()}
        if bank is None:
            target = fitting.target(calibration)
            K, P = fitting.solve(calibration, target)
        else:
            trained = fitting.bank(bank)
            trained.train(progress)
            K, P, measured = fitting.judge(trained, calibration, generated, answers)
            described |= measured
        narrow = replace(answers, seen=replace(answers.seen, u=answers.seen.u @ P))
        return fitting.write(K, P, fidelity_report(K, narrow, fitting.data, config.seed, described))


def size_bank(
    package_dir: Path,
    export_dir: Path,
    base_dir: Path,
    bank: BankConfig,
    minutes: float,
    progress: Progress = silent,
) -> BankConfig:
    """The largest bank of `bank`'s shape that trains in `minutes`, from the time of its first two runs of a worker.

    Its first runs are kept. At least 8 subsets, at most those there are. Raises what `fit_head` does.
    """
    with threads(bank.threads):
        fitting = Fitting.load(package_dir, export_dir, base_dir, HeadConfig(threads=bank.threads), progress)
        first = fitting.bank(bank)
        started = time.monotonic()
        count = first.train(progress, at_most=2 * bank.workers * bank.batch)
        seconds = (time.monotonic() - started) / max(count, 1)
    others = len(first.runs) - bank.seeds * bank.subsets
    affordable = int((60 * minutes / seconds - others) / bank.seeds) if count else bank.subsets
    return replace(bank, subsets=max(8, affordable - affordable % 2))


@dataclass(frozen=True)
class Fitting:
    """Everything a fit works on, loaded and checked."""

    package_dir: Path
    base_dir: Path
    base: BaseModel
    record: TrainingRecord
    regime: Regime
    training: TrainingConfig
    data: TokenDataset
    tokenizer: Any
    model: AdaptedModel
    trace: DirectionScorer
    in_run: DirectionScorer
    config: HeadConfig
    progress: Progress

    @classmethod
    def load(
        cls, package_dir: Path, export_dir: Path, base_dir: Path, config: HeadConfig, progress: Progress
    ) -> Fitting:
        base = BaseModel.from_directory(base_dir)
        content = (package_dir / RECORD).read_bytes()
        record = parse_record(content)
        if record.base != base.digest:
            raise BaseMismatch(f"{package_dir} was trained on {record.base}, {base_dir} is {base.digest}")
        tokenizer = load_tokenizer(base_dir)
        data = load_dataset(export_dir, tokenizer)
        if record.datanet_version != data.version.digest:
            raise DatanetMismatch(f"{package_dir} was trained on {record.datanet_version}, not {data.version.digest}")
        saved = read_checkpoint(work_dir(package_dir) / "trace.safetensors", record.weights)
        if saved is None:
            raise TraceMissing(f"no training trace beside {package_dir}: it was not trained here")
        model = load_adapted(base_dir, package_dir)
        return cls(
            package_dir=package_dir,
            base_dir=base_dir,
            base=base,
            record=record,
            regime=config.regime_of(parse_canonical(content).get("final_loss_ppm", 1_000_000)),
            training=TrainingConfig.of(parse_canonical(content)["hyperparameters"]),
            data=data,
            tokenizer=tokenizer,
            model=model,
            trace=DirectionScorer("trace", saved[0]["trace"].float()),
            in_run=DirectionScorer("in_run", saved[0]["in_run"].float()),
            config=config,
            progress=progress,
        )

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
        """The trace and, where the regime or a bank asks for it, EK-FAC influence."""
        return [self.trace, self.ekfac] if with_exact or self.regime.exact == "ekfac" else [self.trace]

    def observe(self, examples: Sequence[TokenExample], stage: str, scorers: Sequence[Scorer]) -> Observations:
        """Features at the taps, u at full width, and exact scores of the examples' supervised tokens, in order."""
        readout = Readout(self.model.causal_lm, torch.eye(self.base.hidden_size))
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
        """What the regime says the head reproduces [N, C]: of the trace's size, so that scores are in nats."""
        scores = calibration[1].scores
        nats = scores["trace"].square().mean().sqrt() / scores[self.regime.exact].square().mean().sqrt().clamp_min(
            1e-30
        )
        exact = scores[self.regime.exact] * nats
        return mix(exact, self.labels(calibration), self.regime.label_weight_ppm / 1e6)

    def solve(
        self, calibration: tuple[list[TokenExample], Observations], target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """K [C, taps, k, r] and P [D, k]."""
        seen, ridge = calibration[1], self.regime.ridge_ppm / 1e6
        if self.regime.own_basis:
            return fit_narrow(seen.u, seen.h, target, ridge, self.k)
        P = readout_basis(self.base_dir, self.model.causal_lm, self.k)
        return fit_bilinear(seen.u @ P, seen.h, target, ridge), P

    def bank(self, config: BankConfig) -> Bank:
        """The subset bank beside the package."""
        return Bank(work_dir(self.package_dir) / "bank", self.subject(config.dtype), config)

    def subject(self, dtype: str | None = None) -> Subject:
        """What a bank of this adapter retrains, the frozen base in `dtype` or in the adapter's own."""
        return Subject(
            base_dir=self.base_dir,
            base=self.base.digest,
            datanet_version=self.data.version.digest,
            training=replace(self.training, dtype=dtype or self.training.dtype),
            contributors=self.data.contributors,
            examples=self.data.examples,
        )

    def judge(
        self,
        bank: Bank,
        calibration: tuple[list[TokenExample], Observations],
        generated: Sequence[TokenExample],
        answers: Answers,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """K, P, and what the bank measured of them, as members of the fidelity report."""
        examples, seen = calibration
        queries = [replace(text, owner=owner) for text, owner in zip(generated, answers.asked.truth, strict=True)]
        measured = outcomes(bank, queries, self.progress)
        evidence = Evidence(
            margins=bank.margins(examples, [run for run in bank.runs if run.kind != LEFT_OUT], self.progress),
            runs=[run for run in bank.runs if run.kind != LEFT_OUT],
            present=sorted({example.owner for example in self.data.examples}),
            targets=seen.scores | {"provenance": self.labels(calibration)},
        )
        choice = choose(seen, evidence, answers.seen, measured, self.regime.ridge_ppm / 1e6)

        def fitted(without: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
            return self.solve(calibration, evidence.mixed(choice.shares, without))

        K, P = fitted()
        held_out = folds(len(measured.members)) if BANK in choice.shares else []
        heads = [fitted(fold) for fold in held_out] or [(K, P)]
        return (
            K,
            P,
            fidelity_against(bank, choice, heads, held_out, (K, P), answers, measured, evidence, calibration[1]),
        )

    def answers(self, questions: Sequence[Question] | None, *, with_exact: bool) -> tuple[list[TokenExample], Answers]:
        """Greedy answers of the adapter to held-out questions: as examples, and observed at full width."""
        asked = ask(questions, self.data, self.tokenizer, self.config)
        generated = self.generate(asked.prompts, "answering questions")
        seen = self.observe(generated, "measuring head", self.scorers(with_exact=with_exact))
        return generated, answered(asked, generated, seen, self.tokenizer)

    def locality(self, generated: Sequence[TokenExample]) -> Estimate:
        """Correlation of position-local trace scores with full-gradient ones, on a few answers."""
        few = generated[: self.config.full_gradient_answers]
        readout = Readout(self.model.causal_lm, torch.eye(self.base.hidden_size)[:, :1])
        local = observe(self.model, readout, few, [self.trace])
        full = observe(self.model, readout, few, [self.trace], position_local=False, stage="full gradients")
        return pearson(local.sorted().scores["trace"], full.sorted().scores["trace"])

    def describe(self, calibration: tuple[list[TokenExample], Observations]) -> dict[str, Any]:
        """Members of the fidelity report that name what was fitted to what."""
        return {
            "base": self.base.digest,
            "weights": self.record.weights,
            "datanet_version": self.data.version.digest,
            "calibration": {
                "examples": len(calibration[0]),
                "own_answers": self.regime.own_answers,
                "tokens": len(calibration[1].example),
            },
            "method": "trace",
            "target": self._target_name(),
            "head": {
                "k": self.k,
                "label_weight_ppm": self.regime.label_weight_ppm,
                "own_basis": self.regime.own_basis,
                "ridge_ppm": self.regime.ridge_ppm,
                "taps": list(self.config.taps),
            },
        }

    def _target_name(self) -> str:
        share = self.regime.label_weight_ppm / 1e6
        return label({name: part for name, part in ((self.regime.exact, 1 - share), ("provenance", share)) if part})

    def write(self, K: torch.Tensor, P: torch.Tensor, report: dict[str, Any]) -> FittedHead:
        names = list(self.model.modules)
        content = canonical_json(report)
        head = AttributionHead(
            K=K,
            P=P,
            taps=tuple(names[i] for i in self.taps),
            contributors=self.data.contributors,
            base=self.base.digest,
            weights=self.record.weights,
            datanet_version=self.data.version.digest,
            fidelity=digest(content),
            method=report["method"],
        )
        (self.package_dir / FIDELITY).write_bytes(content)
        head.save(self.package_dir / HEAD)
        return FittedHead(self.package_dir / HEAD, file_digest(self.package_dir / HEAD), report)
