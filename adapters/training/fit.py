"""Fit the attribution head of a trained package and write its fidelity report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adapters.base import BaseModel
from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import digest, file_digest
from adapters.package import FIDELITY, HEAD, RECORD
from adapters.record import TrainingRecord, parse_record
from adapters.training.basis import readout_basis
from adapters.training.calibration import PHRASES, prompts_behind, recontextualised
from adapters.training.checkpoint import read_checkpoint
from adapters.training.config import HeadConfig, Regime
from adapters.training.dataset import TokenDataset, load_dataset, load_tokenizer
from adapters.training.errors import BaseMismatch, DatanetMismatch, TraceMissing
from adapters.training.fidelity import Answers, answered, ask, fidelity_report
from adapters.training.generate import greedy
from adapters.training.head import AttributionHead
from adapters.training.measures import Estimate, pearson
from adapters.training.model import AdaptedModel, load_adapted
from adapters.training.observe import Observations, Readout, observe
from adapters.training.progress import Progress, silent
from adapters.training.question import Question
from adapters.training.ridge import fit_bilinear
from adapters.training.scorers import DirectionScorer
from adapters.training.targets import mix, provenance
from adapters.training.threads import threads
from adapters.training.tokens import TokenExample
from adapters.training.work import work_dir

TARGETS = {0: "trace", 1_000_000: "provenance"}
"""Names of the pure targets by label weight; every other is a mix."""


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
    progress: Progress = silent,
) -> FittedHead:
    """Fit `attribution_head.safetensors` and `fidelity.json` into `package_dir`.

    Calibrates on the Datanet's answers in contexts the adapter was not trained on; reports the correlation with the
    exact trace scorer on the model's own greedy answers to `questions` (unseen ones; without them, to re-contextualised
    prompts of the Datanet that calibration did not use), and who owns them against the baselines. Deterministic.
    Raises DatanetMismatch, BaseMismatch, TraceMissing, ExportMismatch, UnsupportedBase.
    """
    config = config or HeadConfig()
    with threads(config.threads):
        fitting = _Fitting.load(package_dir, export_dir, base_dir, config, progress)
        calibration = fitting.calibration()
        K = fitting.solve(calibration)
        generated, answers = fitting.answers(questions)
        described = fitting.describe(calibration) | {"position_local_with_full": fitting.locality(generated).record()}
        report = fidelity_report(K, answers, fitting.data, config.seed, described)
        return fitting.write(K, report)


@dataclass(frozen=True)
class _Fitting:
    """Everything a fit works on, loaded and checked."""

    package_dir: Path
    base: BaseModel
    record: TrainingRecord
    regime: Regime
    data: TokenDataset
    tokenizer: Any
    model: AdaptedModel
    basis: torch.Tensor
    trace: DirectionScorer
    config: HeadConfig
    progress: Progress

    @classmethod
    def load(
        cls, package_dir: Path, export_dir: Path, base_dir: Path, config: HeadConfig, progress: Progress
    ) -> _Fitting:
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
            base=base,
            record=record,
            regime=config.regime_of(parse_canonical(content).get("final_loss_ppm", 1_000_000)),
            data=data,
            tokenizer=tokenizer,
            model=model,
            basis=readout_basis(base_dir, model.causal_lm, config.k),
            trace=DirectionScorer("trace", saved[0]["trace"].float()),
            config=config,
            progress=progress,
        )

    @property
    def taps(self) -> list[int]:
        """Indices of the tapped modules among the adapted ones."""
        return [i for i, name in enumerate(self.model.modules) if name.rsplit(".", 1)[1] in self.config.taps]

    def observe(self, examples: Sequence[TokenExample], stage: str) -> Observations:
        """Features at the taps and trace scores of the examples' supervised tokens."""
        readout = Readout(self.model.causal_lm, self.basis)
        seen = observe(self.model, readout, examples, [self.trace], stage=stage, progress=self.progress)
        return replace(seen, h=seen.h[:, self.taps])

    def calibration(self) -> tuple[list[TokenExample], Observations]:
        """Calibration examples and their observed tokens."""
        examples = self.own_answers() if self.regime.own_answers else self.given_answers()
        return examples, self.observe(examples, "calibrating head")

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

    def solve(self, calibration: tuple[list[TokenExample], Observations]) -> torch.Tensor:
        """K [C, taps, k, r] of the configured target."""
        examples, seen = calibration
        owner = torch.tensor([example.owner for example in examples])[seen.example]
        counts = torch.bincount(owner, minlength=len(self.data.contributors)).tolist()
        target = mix(seen.scores["trace"], provenance(owner, counts), self.regime.label_weight_ppm / 1e6)
        draw = torch.Generator().manual_seed(self.config.seed)
        chosen = torch.randperm(len(owner), generator=draw)[: self.config.calibration_tokens]
        return fit_bilinear(seen.u[chosen], seen.h[chosen], target[chosen], self.regime.ridge_ppm / 1e6)

    def answers(self, questions: Sequence[Question] | None) -> tuple[list[TokenExample], Answers]:
        """Greedy answers of the adapter to held-out questions: as examples, and observed."""
        asked = ask(questions, self.data, self.tokenizer, self.config)
        generated = self.generate(asked.prompts, "answering questions")
        return generated, answered(asked, generated, self.observe(generated, "measuring head"), self.tokenizer)

    def locality(self, generated: Sequence[TokenExample]) -> Estimate:
        """Correlation of position-local trace scores with full-gradient ones, on a few answers."""
        few = generated[: self.config.full_gradient_answers]
        readout = Readout(self.model.causal_lm, self.basis)
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
                "tokens": min(len(calibration[1].example), self.config.calibration_tokens),
            },
            "target": TARGETS.get(self.regime.label_weight_ppm, "trace+provenance"),
            "head": {
                "k": self.config.k,
                "label_weight_ppm": self.regime.label_weight_ppm,
                "ridge_ppm": self.regime.ridge_ppm,
                "taps": list(self.config.taps),
            },
        }

    def write(self, K: torch.Tensor, report: dict[str, Any]) -> FittedHead:
        names = list(self.model.modules)
        content = canonical_json(report)
        head = AttributionHead(
            K=K,
            P=self.basis,
            taps=tuple(names[i] for i in self.taps),
            contributors=self.data.contributors,
            base=self.base.digest,
            weights=self.record.weights,
            datanet_version=self.data.version.digest,
            fidelity=digest(content),
        )
        (self.package_dir / FIDELITY).write_bytes(content)
        head.save(self.package_dir / HEAD)
        return FittedHead(self.package_dir / HEAD, file_digest(self.package_dir / HEAD), report)
