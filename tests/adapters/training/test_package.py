"""From an export to a package with a head, on a tiny base model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from adapters.base import BaseModel
from adapters.canonical import parse_canonical
from adapters.digests import digest, file_digest
from adapters.package import PackageLimits, inspect
from adapters.training.config import MEMORISED, HeadConfig
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


def test_heads_of_one_base_share_the_bytes_of_p(
    package: Path, base_dir: Path, export_dir: Path, tmp_path: Path
) -> None:
    """Another adapter's head, fitted in the other regime, carries the same P: an engine keeps one W_P for both."""
    out = tmp_path / "other"
    train_adapter(export_dir, base_dir, out, seed=4, config=tiny_config(), trainer="tess", host="hal")
    fit_head(out, export_dir, base_dir, config=replace(HEAD_CONFIG, regime=MEMORISED))
    first, second = (AttributionHead.load(path / "attribution_head.safetensors") for path in (package, out))
    assert torch.equal(first.P, second.P)
    assert not torch.equal(first.K, second.K)


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
