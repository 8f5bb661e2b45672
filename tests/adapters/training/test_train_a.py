"""Training A as well: a package like any other, whose record, trace, audits, retrains and head know of it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters.base import BaseModel
from adapters.canonical import parse_canonical
from adapters.package import PackageLimits, inspect
from adapters.training.audit import AuditModel
from adapters.training.bank_worker import Work, Worker
from adapters.training.config import HeadConfig, TrainingConfig
from adapters.training.dataset import load_dataset, load_tokenizer
from adapters.training.fit import fit_head
from adapters.training.loop import run_training
from adapters.training.model import HiddenCache, add_lora, draw_a, load_adapted, load_base
from adapters.training.observe import Readout, observe
from adapters.training.packs import common_prefix
from adapters.training.subsets import FULL, Run
from adapters.training.train import train_adapter
from adapters.training.work import work_dir
from tests.adapters.training.tiny import CONTRIBUTORS, tiny_config, tiny_examples, tiny_model

CONFIG = tiny_config(train_a=True)
HEAD_CONFIG = HeadConfig(k=8, calibration_examples=6, report_examples=4, max_new_tokens=4, threads=1)


@pytest.fixture(scope="module")
def package(base_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose A was trained, with its head."""
    out = tmp_path_factory.mktemp("packages") / "tiny-a"
    train_adapter(export_dir, base_dir, out, seed=3, config=CONFIG, trainer="tess", host="hal")
    fit_head(out, export_dir, base_dir, config=HEAD_CONFIG)
    return out


def test_a_record_names_it_only_where_it_is_on() -> None:
    """Records and bank files of frozen A are what they were; a record that names it is read back."""
    assert "train_a" not in TrainingConfig().record()
    assert TrainingConfig.of(CONFIG.record()) == CONFIG


def test_the_package_holds_what_was_trained_and_its_trace(package: Path, base_dir: Path) -> None:
    """The registry takes it; A moved from where it was drawn; what is left of A_0 and the traces add up to it."""
    assert inspect(package, BaseModel.from_directory(base_dir), PackageLimits()).method == "trace"
    record = parse_canonical((package / "training_record.json").read_bytes())
    assert record["hyperparameters"]["train_a"] is True
    assert record["trace_error_ppb"] <= 10_000
    model = load_adapted(base_dir, package)
    trace = load_file(work_dir(package) / "trace.safetensors")["trace"]
    assert trace.shape == (CONTRIBUTORS, model.parameter.numel())
    moved = model.split(trace.sum(0))
    drawn = draw_a([a.weight.shape for a, _ in model.modules.values()], 3)
    for (name, (a, _)), start in zip(model.modules.items(), drawn, strict=True):
        change = moved[f"{name}.lora_A"].float()
        assert change.abs().max() > 1e-4
        left = (a.weight - change) / start
        torch.testing.assert_close(left, torch.full_like(left, float(left.median())), rtol=1e-2, atol=0)
        torch.testing.assert_close(a.weight, float(left.median()) * start + change, rtol=0, atol=1e-6)


def test_an_audit_scores_by_both_traces(package: Path, base_dir: Path) -> None:
    """Its exact scores are those of A's and B's traces; the head reads h = A x at the trained A."""
    adapter = inspect(package, BaseModel.from_directory(base_dir), PackageLimits()).digest
    audited = AuditModel.load(package, base_dir, adapter=adapter, works=package.parent, scorer="trace")
    found = audited.rescore([[4, 5, 6]], [[7, 8, 9, 10]])
    of_b = audited.scorer.directions.clone()
    start = sum(b.weight.numel() for _, b in audited.model.modules.values())
    of_b[:, start:] = 0
    without_a = AuditModel(audited.model, audited.head, type(audited.scorer)("trace", of_b)).rescore(
        [[4, 5, 6]], [[7, 8, 9, 10]]
    )
    assert torch.isfinite(found.head).all()
    assert (found.exact - without_a.exact).abs().max() > 1e-3 * found.exact.abs().max()


def test_a_bank_worker_trains_and_measures_it(base_dir: Path, export_dir: Path) -> None:
    """Margins under a retrained run are PEFT's own with its A and B."""
    data = load_dataset(export_dir, load_tokenizer(base_dir))
    worker = Worker(Work(base_dir, CONFIG, data.examples, 1))
    run = Run(FULL, tuple(range(CONTRIBUTORS)), 5)
    [done] = worker.train((run,))
    found = worker.margins(data.examples, (run,), done.parameter[None])[0]
    adapted = add_lora(load_base(base_dir), CONFIG, "tiny", seed=9)
    adapted.parameter.copy_(done.parameter)
    seen = observe(adapted, Readout(adapted.causal_lm), data.examples, []).sorted()
    torch.testing.assert_close(found, seen.margin, rtol=1e-3, atol=1e-4)


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Parameter, trace and what is left of A_0, from a checkpoint in the middle."""
    examples = tiny_examples()

    def train(name: str, stop_at: int | None = None):  # type: ignore[no-untyped-def]
        def progress(_stage: str, done: int, _total: int, _note: str) -> None:
            if done == stop_at:
                raise InterruptedError

        model = tiny_model(train_a=True)
        cache = HiddenCache(model, examples, common_prefix(examples))
        where = {"run": "r", "checkpoint": tmp_path / name}
        return run_training(model, cache, CONTRIBUTORS, CONFIG, seed=0, progress=progress, **where)[0]  # type: ignore[arg-type]

    whole = train("whole")
    with pytest.raises(InterruptedError):
        train("cut", stop_at=3)
    resumed = train("cut")
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
