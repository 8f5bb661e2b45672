"""The subset bank: its runs repeat the recipe, it survives a kill, and what is another's is refused."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.base import BaseModel
from adapters.training.bank import Bank, BankConfig, Subject
from adapters.training.bank_worker import run_path
from adapters.training.dataset import load_dataset, load_tokenizer
from adapters.training.errors import BankCorrupted, BankIncomplete, BankInterrupted, BankMismatch
from adapters.training.loop import run_training
from adapters.training.model import HiddenCache, add_lora
from adapters.training.observe import Readout, observe
from adapters.training.packs import common_prefix
from adapters.training.retrain import retrain
from adapters.training.stack import StackedModel
from adapters.training.subsets import FULL, HALF, Run, half_subsets, indicator
from tests.adapters.training.tiny import CONTRIBUTORS, tiny_base, tiny_config, tiny_examples

EVERYONE = tuple(range(CONTRIBUTORS))


@pytest.mark.parametrize("train_a", [False, True])
def test_a_run_of_everyone_repeats_the_training_run(tmp_path: Path, train_a: bool) -> None:
    """Beside runs of other subsets and seeds that take fewer steps; a leak between rows would show."""
    examples, config = tiny_examples(), tiny_config(stop_loss_ppm=1, train_a=train_a)
    adapted = add_lora(tiny_base(), config, "tiny", seed=4)
    cache = HiddenCache(adapted, examples, common_prefix(examples))
    run_training(adapted, cache, CONTRIBUTORS, config, seed=4, run="x", checkpoint=tmp_path / "checkpoint")
    stacked = StackedModel(tiny_base(), config)
    runs = [Run(HALF, (0,), 1), Run(FULL, EVERYONE, 4), Run(HALF, (1, 2), 4)]
    done = retrain(stacked, HiddenCache(stacked, examples, common_prefix(examples)), runs, config)
    torch.testing.assert_close(done[1].parameter, adapted.parameter, rtol=1e-3, atol=1e-5)
    assert [one.run for one in done] == runs
    assert done[0].steps < done[1].steps


def test_half_subsets_come_with_their_complements() -> None:
    """Distinct, so every contributor is in half of them; not more than there are."""
    subsets = half_subsets(9, 32, seed=0)
    assert len(set(subsets)) == 32
    assert {len(subset) for subset in subsets} == {4, 5}
    assert indicator(subsets, 9).mean(0).tolist() == [0.5] * 9
    assert len(half_subsets(4, 100, seed=0)) == 6


@pytest.fixture
def subject(base_dir: Path, export_dir: Path) -> Subject:
    data = load_dataset(export_dir, load_tokenizer(base_dir))
    config = tiny_config(max_epochs=2)
    base = BaseModel.from_directory(base_dir)
    return Subject(base_dir, base.digest, data.version.digest, config, data.contributors, data.examples)


CONFIG = BankConfig(subsets=2, seeds=1, leave_one_out=False, workers=1, batch=2)


def test_a_killed_bank_goes_on(tmp_path: Path, subject: Subject) -> None:
    """kill -9 of a worker is a named error, what was finished stays, and the second call trains the rest only."""
    bank = Bank(tmp_path, subject, CONFIG)

    def kill(_stage: str, done: int, _total: int, _note: str) -> None:
        if done:
            for process in _children():
                os.kill(process, signal.SIGKILL)

    with pytest.raises(BankInterrupted):
        bank.train(kill)
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert 0 < len(finished) < len(bank.runs)
    with pytest.raises(BankIncomplete, match="lacks"):
        bank.margins(subject.examples, bank.runs)
    bank.train()
    assert bank.missing == []
    assert {name: (tmp_path / "runs" / name).stat().st_mtime_ns for name in finished} == finished


def _children() -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_margins_are_those_of_the_retrained_adapter(tmp_path: Path, subject: Subject) -> None:
    """Against PEFT's own forward pass with the run's weights."""
    bank = Bank(tmp_path, subject, CONFIG)
    bank.train()
    run = bank.runs[1]
    found = bank.margins(subject.examples, [run])[0]
    adapted = add_lora(tiny_base(), subject.training, "tiny", seed=run.seed)
    from adapters.training.bank_worker import read
    from adapters.training.model import load_base

    adapted = add_lora(load_base(subject.base_dir), subject.training, "tiny", seed=run.seed)
    adapted.parameter.copy_(read(run_path(tmp_path / "runs", run), "B"))
    readout = Readout(adapted.causal_lm)
    seen = observe(adapted, readout, subject.examples, []).sorted()
    torch.testing.assert_close(found, seen.margin, rtol=1e-3, atol=1e-4)


def test_what_is_not_this_banks_is_refused(tmp_path: Path, subject: Subject) -> None:
    """Another recipe's directory, and a damaged file."""
    from dataclasses import replace

    bank = Bank(tmp_path, subject, CONFIG)
    with pytest.raises(BankMismatch):
        Bank(tmp_path, replace(subject, training=tiny_config(max_epochs=9)), CONFIG)
    bank.train()
    bank.margins(subject.examples, bank.runs[:1])
    path = run_path(tmp_path / "runs", bank.runs[0])
    assert len(bank.milliseconds()) == CONFIG.subsets * CONFIG.seeds
    save_file(load_file(path), path)  # without the metadata that runs have since
    with pytest.raises(BankCorrupted, match="how long"):
        bank.milliseconds()
    (path,) = (tmp_path / "margins").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BankCorrupted):
        bank.margins(subject.examples, bank.runs[:1])
