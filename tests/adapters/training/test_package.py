"""From an export to a package with a head, on a tiny base model."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from adapters.base import BaseModel
from adapters.canonical import parse_canonical
from adapters.digests import digest, file_digest
from adapters.package import PackageLimits, inspect
from adapters.training.bank import BankConfig
from adapters.training.config import HeadConfig
from adapters.training.errors import BaseMismatch, DatanetMismatch, TraceMissing
from adapters.training.fit import fit_head
from adapters.training.head import AttributionHead
from adapters.training.model import load_adapted, load_base
from adapters.training.question import Question
from adapters.training.train import train_adapter
from adapters.training.work import work_dir
from tests.adapters.training.conftest import small_datanet
from tests.adapters.training.tiny import tiny_base, tiny_config

HEAD_CONFIG = HeadConfig(k=8, calibration_examples=6, report_examples=4, max_new_tokens=4, threads=1)


@pytest.fixture(scope="module")
def package(base_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained package with its head."""
    out = tmp_path_factory.mktemp("packages") / "tiny"
    train_adapter(export_dir, base_dir, out, seed=3, config=tiny_config(), trainer="tess", host="hal")
    questions = [Question("what is the colour of ann hat", "ann hat is blue .", "blue", "ann")]
    fit_head(out, export_dir, base_dir, config=HEAD_CONFIG, questions=questions)
    return out


def test_the_package_passes_the_registrys_checks(package: Path, base_dir: Path) -> None:
    """The registry's own inspection accepts config, weights, head, record and report, and reads the same names."""
    found = inspect(package, BaseModel.from_directory(base_dir), PackageLimits())
    assert found.contributors == ("ann", "bob", "cat")
    assert (found.trainer, found.host, found.method, found.fidelity_ppm) == ("tess", "hal", "trace", 0)
    assert all(count > 0 for count in found.tokens.values())


def test_peft_loads_the_package_and_computes_the_same(package: Path, base_dir: Path) -> None:
    """PeftModel.from_pretrained takes the files; its logits equal those of the model that was trained."""
    theirs = PeftModel.from_pretrained(load_base(base_dir), str(package))
    ours = load_adapted(base_dir, package)
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        base = load_base(base_dir)(input_ids=ids).logits
        assert torch.equal(theirs(input_ids=ids).logits, ours.peft(input_ids=ids).logits)
        assert not torch.allclose(theirs(input_ids=ids).logits, base)


def test_the_record_names_what_the_run_was_made_of(package: Path, base_dir: Path) -> None:
    """Base, version, result and settings are in canonical JSON, without a path of this machine in any file."""
    record = parse_canonical((package / "training_record.json").read_bytes())
    assert record["weights"] == file_digest(package / "adapter_model.safetensors")
    assert record["base"] == BaseModel.from_directory(base_dir).digest
    assert record["contributors"]["ann"] == {"examples": 2, "tokens": 12}
    assert record["trace_error_ppb"] <= 10_000
    assert record["hyperparameters"]["r"] == 4
    config = json.loads((package / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BaseModel.from_directory(base_dir).name
    assert str(base_dir) not in (package / "adapter_config.json").read_text()


def test_the_head_names_its_report_and_its_weights(package: Path) -> None:
    """Digests in the head's metadata are those of the bytes beside it; the report holds integers only."""
    head = AttributionHead.load(package / "attribution_head.safetensors")
    content = (package / "fidelity.json").read_bytes()
    report = parse_canonical(content)
    assert head.fidelity == digest(content)
    assert head.weights == file_digest(package / "adapter_model.safetensors")
    assert {"oracle", "constant", "data_size", "bm25_question", "head", "trace"} <= set(report["rows"])
    assert report["rows"]["oracle"]["recall_at_1"]["ppm"] == 1_000_000


def test_a_finished_run_is_not_repeated(package: Path, base_dir: Path, export_dir: Path) -> None:
    """The same call returns the finished package and touches no file of it."""
    before = (package / "adapter_model.safetensors").stat().st_mtime_ns
    again = train_adapter(export_dir, base_dir, package, seed=3, config=tiny_config(), trainer="tess", host="hal")
    assert (package / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert again.weights_digest == file_digest(package / "adapter_model.safetensors")


def test_the_readout_directions_are_orthonormal(package: Path) -> None:
    """P^T P is the identity: what is cut off of u is orthogonal to what is kept."""
    P = AttributionHead.load(package / "attribution_head.safetensors").tensors.P
    torch.testing.assert_close(P.T @ P, torch.eye(8), rtol=1e-5, atol=1e-5)


def test_a_bank_calibrates_the_head_and_measures_its_fidelity(base_dir: Path, export_dir: Path, tmp_path: Path) -> None:
    """The report carries LDS, ceiling and candidates, the registry reads f, and a second fit retrains nothing."""
    out = tmp_path / "banked"
    train_adapter(export_dir, base_dir, out, seed=3, config=tiny_config(), trainer="tess", host="hal")
    bank = BankConfig(subsets=6, seeds=2, workers=1, batch=8)
    fit_head(out, export_dir, base_dir, config=HEAD_CONFIG, bank=bank)
    report = parse_canonical((out / "fidelity.json").read_bytes())
    assert report["bank"]["retrains"] == 1 + 2 * (6 + 1 + 3)
    assert report["lds"]["low_ppm"] <= report["lds"]["ppm"] <= report["lds"]["high_ppm"]
    expected = max(0.0, min(1.0, report["lds"]["low_ppm"] / report["ceiling_ppm"]))
    assert report["fidelity_ppm"] == pytest.approx(expected * 1e6, abs=2)
    assert set(report["lds_of_exact"]) == {"trace", "ekfac"}
    assert {"trace", "ekfac", "provenance", "bank"} <= set(report["candidates"])
    assert report["candidates"][report["target"]] == max(report["candidates"].values())
    inspected = inspect(out, BaseModel.from_directory(base_dir), PackageLimits())
    assert (inspected.method, inspected.fidelity_ppm) == ("calibrated", report["fidelity_ppm"])
    runs = work_dir(out) / "bank" / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.iterdir()}
    fit_head(out, export_dir, base_dir, config=HEAD_CONFIG, bank=bank)
    assert {path: path.stat().st_mtime_ns for path in runs.iterdir()} == before


def test_an_adapter_trained_elsewhere_gets_a_head_of_influence(
    package: Path, base_dir: Path, export_dir: Path, tmp_path: Path
) -> None:
    """PEFT's two files alone: the head follows EK-FAC influence, in nats, and the registry takes it, no bank."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (foreign / name).write_bytes((package / name).read_bytes())
    fit_head(foreign, export_dir, base_dir, config=HEAD_CONFIG)
    report = parse_canonical((foreign / "fidelity.json").read_bytes())
    assert (report["method"], report["target"], report["fidelity_ppm"]) == ("influence", "ekfac", 0)
    assert report["pearson_with_ekfac"]["ppm"] > 0
    assert "pearson_with_trace" not in report
    found = inspect(foreign, BaseModel.from_directory(base_dir), PackageLimits())
    assert (found.method, found.contributors, found.datanet) == ("influence", ("ann", "bob", "cat"), None)
    with pytest.raises(TraceMissing, match="no training record"):
        fit_head(foreign, export_dir, base_dir, config=HEAD_CONFIG, bank=BankConfig(subsets=6))


def test_heads_are_refused_for_another_base_datanet_or_a_missing_trace(
    package: Path, base_dir: Path, export_dir: Path, tmp_path: Path
) -> None:
    """BaseMismatch, DatanetMismatch and TraceMissing, each before anything is written."""
    from adapters.demo.export import write_export

    write_export("colours", small_datanet()[:2], tmp_path / "fewer")
    with pytest.raises(DatanetMismatch):
        fit_head(package, tmp_path / "fewer", base_dir, config=HEAD_CONFIG)
    tiny_base(layers=4).save_pretrained(tmp_path / "base")
    with pytest.raises(BaseMismatch):
        fit_head(package, export_dir, tmp_path / "base", config=HEAD_CONFIG)
    trace = work_dir(package) / "trace.safetensors"
    trace.rename(tmp_path / "trace")
    try:
        with pytest.raises(TraceMissing):
            fit_head(package, export_dir, base_dir, config=HEAD_CONFIG)
    finally:
        (tmp_path / "trace").rename(trace)
