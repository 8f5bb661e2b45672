"""Audits score a request's tokens again: the head as it was served, and the exact scorer beside it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters.base import BaseModel
from adapters.demo.export import write_export
from adapters.digests import digest
from adapters.errors import ExportMismatch
from adapters.package import manifest_bytes
from adapters.training.audit import AuditModel, reported_scorers
from adapters.training.bank import BankConfig
from adapters.training.config import HeadConfig
from adapters.training.errors import (
    BankCorrupted,
    BankIncomplete,
    DatanetMismatch,
    HeadMissing,
    PackageChanged,
    PackageMissing,
    RequestTooLong,
    TraceMissing,
)
from adapters.training.fit import fit_head
from adapters.training.fitting import Fitting
from adapters.training.head import AttributionHead
from adapters.training.progress import silent
from adapters.training.subsets import indicator
from adapters.training.tokens import TokenExample
from adapters.training.train import train_adapter
from tests.adapters.training.conftest import small_datanet
from tests.adapters.training.tiny import tiny_config

PROMPT, ANSWER = [4, 6, 7, 8, 9], [10, 11, 12, 13, 2]


@pytest.fixture(scope="module")
def trained(base_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "tiny"
    train_adapter(export_dir, base_dir, out, seed=3, config=tiny_config(max_epochs=1), trainer="tess", host="hal")
    config = HeadConfig(k=8, calibration_examples=6, report_examples=3, max_new_tokens=4, threads=1)
    fit_head(out, export_dir, base_dir, config=config)
    return out


def name_of(package: Path, base_dir: Path) -> str:
    return digest(manifest_bytes(package, BaseModel.from_directory(base_dir).digest))


def load(package: Path, base_dir: Path, **where: object) -> AuditModel:
    return AuditModel.load(package, base_dir, adapter=name_of(package, base_dir), **where)  # type: ignore[arg-type]


def test_head_and_exact_scores_are_those_of_the_emitted_tokens(trained: Path, base_dir: Path) -> None:
    """A row for each emitted token of each choice; a choice alone scores as it does among others."""
    model = load(trained, base_dir, works=trained.parent)
    both = model.rescore([PROMPT, [*PROMPT, 14]], [ANSWER, [10, 2]])
    assert (both.scorer, both.head.shape, both.contributors) == ("trace", (7, 3), ("ann", "bob", "cat"))
    assert both.choice.tolist() == [0] * 5 + [1] * 2
    alone = model.rescore([PROMPT], [ANSWER])
    torch.testing.assert_close(both.head[:5], alone.head, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(both.exact[:5], alone.exact, rtol=1e-4, atol=1e-6)
    moments = alone.moments()
    assert (moments[0], moments[1]) == (15, pytest.approx(float(alone.head.double().sum())))
    changed = model.rescore([[*PROMPT[:-1], 20]], [ANSWER])
    assert not torch.allclose(changed.exact, alone.exact, rtol=1e-3)


def test_a_corrupted_head_no_longer_agrees_with_the_exact_scorer(trained: Path, base_dir: Path) -> None:
    """K turned around: the exact scores stay, and the correlation changes its sign."""
    model = load(trained, base_dir, works=trained.parent)
    tensors = replace(model.head.tensors, K=-model.head.tensors.K)
    turned = replace(model, head=replace(model.head, tensors=tensors))
    answers = [[10, 11, 12, 13, 15, 16, 9, 8, 7, 6, 5, 2]]
    good, bad = model.rescore([PROMPT], answers), turned.rescore([PROMPT], answers)
    torch.testing.assert_close(good.exact, bad.exact)
    assert good.correlation().value > 0.1
    assert bad.correlation().value == pytest.approx(-good.correlation().value)
    assert set(reported_scorers(trained)) >= {"trace"}


@pytest.mark.parametrize("scorer", ["ekfac", "fisher", "gradient"])
def test_with_the_datanet_an_adapter_without_trace_is_audited(
    trained: Path, base_dir: Path, export_dir: Path, scorer: str
) -> None:
    """Influence scorers need the version's examples only."""
    model = load(trained, base_dir, export_dir=export_dir, scorer=scorer)
    found = model.rescore([PROMPT], [ANSWER])
    assert (found.scorer, torch.isfinite(found.exact).all(), found.exact.abs().max() > 0) == (scorer, True, True)


def test_a_kept_bank_is_the_scorer_that_retraining_is(trained: Path, base_dir: Path, export_dir: Path) -> None:
    """Scores add up to what the whole Datanet gained over the base model; the bank keeps nothing of the request."""
    head = HeadConfig(k=8, threads=1)
    bank = Fitting.load(trained, export_dir, base_dir, head, silent).bank(BankConfig(subsets=6, seeds=1))
    where = {"works": trained.parent, "export_dir": export_dir, "scorer": "retrained"}
    with pytest.raises(BankIncomplete, match="half"):
        load(trained, base_dir, **where)
    bank.train()
    found = load(trained, base_dir, **where).rescore([PROMPT, [*PROMPT, 14]], [ANSWER, [10, 2]])
    assert (found.scorer, found.exact.shape, found.choice.tolist()) == ("retrained", (7, 3), [0] * 5 + [1] * 2)
    assert [path for path in (bank.directory / "margins").rglob("*") if path.is_file()] == []
    texts = [
        TokenExample(0, (*prompt, *ids), (False,) * len(prompt) + (True,) * len(ids))
        for prompt, ids in ((PROMPT, ANSWER), ([*PROMPT, 14], [10, 2]))
    ]
    ends = bank.margins(texts, [run for run in bank.runs if run.kind in ("full", "none")])
    torch.testing.assert_close(found.exact.sum(1), (ends[0] - ends[1]).double(), rtol=1e-4, atol=1e-5)
    halves = [run for run in bank.runs if run.kind == "half"]
    margins, members = bank.margins(texts, halves).double(), indicator([run.members for run in halves], 3)
    predicted = members @ found.exact.T
    of_trace = members @ load(trained, base_dir, works=trained.parent).rescore(
        [PROMPT, [*PROMPT, 14]], [ANSWER, [10, 2]]
    ).exact.double().T  # fmt: skip
    assert _r(predicted, margins) > max(0.5, _r(of_trace, margins))
    with pytest.raises(TraceMissing):
        load(trained, base_dir, export_dir=export_dir, scorer="retrained")
    with pytest.raises(DatanetMismatch):
        load(trained, base_dir, works=trained.parent, scorer="retrained")
    stray = bank.directory / "runs" / "notes.safetensors"
    stray.write_bytes(b"")
    with pytest.raises(BankCorrupted, match="notes"):
        load(trained, base_dir, **where)
    stray.unlink()
    (bank.directory / "bank.json").write_bytes(b"{")
    with pytest.raises(BankCorrupted):
        load(trained, base_dir, **where)
    (bank.directory / "bank.json").unlink()
    with pytest.raises(BankIncomplete, match="no subset bank"):
        load(trained, base_dir, **where)


def _r(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson over subsets [S, N], averaged over tokens."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float(((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))).mean())


def test_what_is_missing_or_changed_has_a_name(trained: Path, base_dir: Path, export_dir: Path, tmp_path: Path) -> None:
    """Package, head, trace, Datanet: a named error each, before any score."""
    with pytest.raises(TraceMissing):
        load(trained, base_dir, works=tmp_path)
    with pytest.raises(PackageMissing):
        AuditModel.load(tmp_path / "none", base_dir, adapter="sha256:" + "0" * 64)
    with pytest.raises(PackageChanged):
        AuditModel.load(trained, base_dir, adapter="sha256:" + "0" * 64)
    write_export("colours", small_datanet()[:2], tmp_path / "fewer")
    with pytest.raises(DatanetMismatch):
        load(trained, base_dir, export_dir=tmp_path / "fewer")
    shutil.copytree(export_dir, tmp_path / "changed")
    examples = tmp_path / "changed" / "examples.jsonl"
    examples.write_bytes(examples.read_bytes().replace(b"red", b"blu"))
    with pytest.raises(ExportMismatch):
        load(trained, base_dir, export_dir=tmp_path / "changed")
    shutil.copytree(trained, tmp_path / "plain")
    for name in ("attribution_head.safetensors", "fidelity.json"):
        (tmp_path / "plain" / name).unlink()
    with pytest.raises(HeadMissing):
        load(tmp_path / "plain", base_dir, works=trained.parent)
    with pytest.raises(RequestTooLong):
        load(trained, base_dir, works=trained.parent).rescore([[4] * 4096], [[5]])
    assert AttributionHead.load(trained / "attribution_head.safetensors").contributors == ("ann", "bob", "cat")
