"""Audits: the tokens of one served request, scored again by the head and by an exact scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.base import BaseModel
from adapters.canonical import parse_canonical
from adapters.composition import parse_composition
from adapters.digests import digest
from adapters.layout import COMPOSITION
from adapters.package import FIDELITY, HEAD, RECORD, manifest_bytes
from adapters.record import TrainingRecord, parse_record
from adapters.training.bank import Subject
from adapters.training.bank_scorer import BankScorer, kept_bank
from adapters.training.composed_audit import composed_scorer, part_dir, trains_a
from adapters.training.config import TrainingConfig
from adapters.training.dataset import TokenDataset, load_dataset, load_tokenizer
from adapters.training.errors import (
    BaseMismatch,
    DatanetMismatch,
    HeadMissing,
    PackageChanged,
    PackageMissing,
    RequestTooLong,
    TraceMissing,
)
from adapters.training.head import AttributionHead
from adapters.training.kronecker import ekfac_scorer
from adapters.training.measures import Estimate, pearson
from adapters.training.model import AdaptedModel, HiddenCache, load_adapted
from adapters.training.observe import Readout, observe
from adapters.training.packs import Pack, common_prefix
from adapters.training.scorers import DirectionScorer, fisher_scorers
from adapters.training.tokens import TokenExample
from adapters.training.work import find_trace

FROM_TRACE = ("trace", "in_run")
FROM_DATANET = ("ekfac", "fisher", "gradient")
MAX_TOKENS = 4096


@dataclass(frozen=True)
class Rescored:
    """N emitted tokens of one request. choice [N]; head and exact [N, C] in nats, C as in `contributors`."""

    contributors: tuple[str, ...]
    scorer: str
    choice: Tensor
    head: Tensor
    exact: Tensor

    def correlation(self) -> Estimate:
        """Pearson of head and exact over (token, contributor) pairs; the 95% interval resamples tokens."""
        return pearson(self.head, self.exact)

    def moments(self) -> list[float]:
        """n, sum a, sum b, sum aa, sum bb, sum ab over all pairs: what windows of requests add up."""
        a, b = self.head.double(), self.exact.double()
        sums = (a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum())
        return [float(a.numel()), *(float(value) for value in sums)]


@dataclass(frozen=True)
class AuditModel:
    """An adapter on its base model, its head, and an exact scorer of the same contributors."""

    model: AdaptedModel
    head: AttributionHead
    scorer: DirectionScorer | BankScorer

    @classmethod
    def load(
        cls,
        package_dir: Path,
        base_dir: Path,
        *,
        adapter: str,
        works: Path | None = None,
        export_dir: Path | None = None,
        scorer: str | None = None,
    ) -> AuditModel:
        """The package `adapter` (its digest) in `package_dir`, with the scorer asked for or the best there is.

        `works` holds training traces (`*.work`), `export_dir` an export of the Datanet version. Without `scorer`: one
        that the head's report compares with, as far as its data is here; `retrained` is the subset bank beside the
        trace, with both. A composed adapter is scored from the traces of its parts, whose packages lie beside it.
        Raises PackageMissing, PackageChanged, HeadMissing, BaseMismatch, TraceMissing, DatanetMismatch, ExportMismatch,
        and what `kept_bank` does.
        """
        base = BaseModel.from_directory(base_dir)
        check_package(package_dir, base.digest, adapter)
        head = AttributionHead.load(package_dir / HEAD)
        if head.base != base.digest:
            raise BaseMismatch(f"the head was fitted on {head.base}, {base_dir} is {base.digest}")
        if (package_dir / COMPOSITION).is_file():
            return cls._composed(package_dir, base_dir, base.digest, head, works, scorer)
        record = _record(package_dir)
        trace = find_trace(works, record.weights) if works else None
        name = scorer or _preferred(reported_scorers(package_dir), trace is not None, export_dir is not None)
        if name in FROM_TRACE:
            recorded = DirectionScorer(name, _tensor(_needed(trace, record, works), name))
            return cls(load_adapted(base_dir, package_dir), head, recorded)
        if export_dir is None:
            raise DatanetMismatch(f"the {name} scorer needs an export of the Datanet version {record.datanet_version}")
        data = _datanet(base_dir, export_dir, record, head)
        if name == BankScorer.name:
            return cls._banked(package_dir, base_dir, base.digest, head, _needed(trace, record, works), data)
        model = load_adapted(base_dir, package_dir)
        return cls(model, head, _from_datanet(model, data, name))

    @classmethod
    def _banked(
        cls, package_dir: Path, base_dir: Path, base: str, head: AttributionHead, trace: Path, data: TokenDataset
    ) -> AuditModel:
        """An adapter with the subset bank that lies beside its training trace."""
        recipe = TrainingConfig.of(parse_canonical((package_dir / RECORD).read_bytes())["hyperparameters"])
        subject = Subject(base_dir, base, data.version.digest, recipe, data.contributors, data.examples)
        bank, runs = kept_bank(trace.parent / "bank", subject)  # before EK-FAC, which takes a minute
        model = load_adapted(base_dir, package_dir)
        recorded = DirectionScorer("trace", _tensor(trace, "trace"))
        return cls(model, head, BankScorer(bank, runs, (recorded, ekfac_scorer(model, data))))

    @classmethod
    def _composed(
        cls,
        package_dir: Path,
        base_dir: Path,
        base: str,
        head: AttributionHead,
        works: Path | None,
        scorer: str | None,
    ) -> AuditModel:
        """A composed adapter with the traces of its parts, which are installed beside it."""
        composition = parse_composition((package_dir / COMPOSITION).read_bytes())
        for part in composition.parts:
            check_package(part_dir(package_dir, part), base, part)
        name = scorer or FROM_TRACE[0]
        if name not in FROM_TRACE:
            raise TraceMissing(
                f"a composed adapter is scored from the traces of its parts, which have no {name} scorer"
            )
        if works is None:
            raise TraceMissing("a composed adapter is scored from the traces of its parts: none are known here")
        model = load_adapted(base_dir, package_dir, train_a=trains_a(package_dir))
        return cls(model, head, composed_scorer(model, package_dir, head.contributors, works, name))

    def rescore(self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]]) -> Rescored:
        """Every emitted token of every choice, position-local; a choice's prompt is that of its block of choices.

        Raises RequestTooLong above 4,096 tokens in one prompt and choice.
        """
        examples, owners = [], []
        for index, ids in enumerate(choices):
            prompt = prompts[index * len(prompts) // len(choices)]
            if len(prompt) + len(ids) > MAX_TOKENS:
                raise RequestTooLong(f"choice {index} has {len(prompt) + len(ids)} tokens, at most {MAX_TOKENS}")
            if ids:
                examples.append(TokenExample(0, (*prompt, *ids), (False,) * len(prompt) + (True,) * len(ids)))
                owners.append(index)
        scorer = self.scorer
        needed = scorer.toward if isinstance(scorer, BankScorer) else (scorer,)
        seen = observe(self.model, Readout(self.model.causal_lm), examples, needed).sorted()
        names = list(self.model.modules)
        tensors = self.head.tensors
        h = seen.h[:, [names.index(tap) for tap in self.head.taps], : tensors.rank]
        return Rescored(
            contributors=self.head.contributors,
            scorer=scorer.name,
            choice=torch.tensor(owners)[seen.example],
            head=tensors.scores(seen.u, h),
            exact=scorer.scores(examples, seen) if isinstance(scorer, BankScorer) else seen.scores[scorer.name],
        )


def check_package(package_dir: Path, base: str, adapter: str) -> None:
    """Raises PackageMissing, HeadMissing, PackageChanged unless `package_dir` holds `adapter` with a head."""
    if not package_dir.is_dir():
        raise PackageMissing(f"the package {adapter} is not at {package_dir}")
    found = digest(manifest_bytes(package_dir, base))
    if found != adapter:
        raise PackageChanged(f"{package_dir} holds {found}, the receipt names {adapter}")
    if not (package_dir / HEAD).is_file():
        raise HeadMissing(f"{adapter} has no attribution head: nothing was scored")


def reported_scorers(package_dir: Path) -> dict[str, dict[str, int]]:
    """Per-token correlations of the head with exact scorers, as its fidelity report has them: by scorer.

    A composed adapter has none of its own: the lowest of its parts', of the scorers that all of them compare with.
    """
    if (package_dir / COMPOSITION).is_file():
        parts = parse_composition((package_dir / COMPOSITION).read_bytes()).parts
        reports = [reported_scorers(part_dir(package_dir, part)) for part in parts]
        shared = set.intersection(*map(set, reports))
        return {name: min((report[name] for report in reports), key=lambda r: r["low_ppm"]) for name in sorted(shared)}
    report = parse_canonical((package_dir / FIDELITY).read_bytes())
    prefix = "pearson_with_"
    return {
        name.removeprefix(prefix): value
        for name, value in report.items()
        if name.removeprefix(prefix) in (*FROM_TRACE, *FROM_DATANET) and isinstance(value, dict)
    }


def _record(package_dir: Path) -> TrainingRecord:
    if not (package_dir / RECORD).is_file():
        raise TraceMissing("the package has no training record: it was not trained here")
    return parse_record((package_dir / RECORD).read_bytes())


def _preferred(reported: Mapping[str, Any], with_trace: bool, with_datanet: bool) -> str:
    """A reported scorer whose data is here; else any whose data is here; else the first there could be."""
    here = [*(FROM_TRACE if with_trace else ()), *(FROM_DATANET if with_datanet else ())]
    return next((name for name in here if name in reported), next(iter(here), FROM_TRACE[0]))


def _needed(trace: Path | None, record: TrainingRecord, works: Path | None) -> Path:
    if trace is None:
        raise TraceMissing(f"no training trace of {record.weights} under {works}: it was trained elsewhere")
    return trace


def _datanet(base_dir: Path, export_dir: Path, record: TrainingRecord, head: AttributionHead) -> TokenDataset:
    data = load_dataset(export_dir, load_tokenizer(base_dir))
    if data.version.digest != record.datanet_version or data.contributors != head.contributors:
        raise DatanetMismatch(f"{export_dir} is {data.version.digest}, the adapter is of {record.datanet_version}")
    return data


def _from_datanet(model: AdaptedModel, data: TokenDataset, name: str) -> DirectionScorer:
    if name == "ekfac":
        return ekfac_scorer(model, data)
    cache = HiddenCache(model, data.examples, common_prefix(data.examples))
    packs = [[Pack(example.owner, (index,))] for index, example in enumerate(data.examples)]
    gradient, fisher = fisher_scorers(model, cache, packs, len(data.contributors))
    return {"gradient": gradient, "fisher": fisher}[name]


def _tensor(trace: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(trace, framework="pt") as file:
        return file.get_tensor(name).float()
