"""Interrupted runs end where uninterrupted ones do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters.training.errors import CheckpointMismatch
from adapters.training.loop import run_training
from adapters.training.model import HiddenCache
from adapters.training.packs import common_prefix
from tests.adapters.training.tiny import CONTRIBUTORS, tiny_config, tiny_examples, tiny_model

ROOT = Path(__file__).parents[3]


def train(checkpoint: Path, run: str = "r", seed: int = 0, progress=lambda *_: None) -> dict[str, torch.Tensor]:
    """All tensors of a finished tiny run, with a checkpoint after every step."""
    model, examples = tiny_model(), tiny_examples()
    cache = HiddenCache(model, examples, common_prefix(examples))
    state, _ = run_training(
        model, cache, CONTRIBUTORS, tiny_config(), seed=seed, run=run, checkpoint=checkpoint, progress=progress
    )
    return state.tensors()


def child() -> None:
    """Train, saying each step on stdout; the test kills this process in the middle of it."""
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), progress=lambda stage, done, total, note: print("step", done, flush=True))


def test_a_run_killed_with_sigkill_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """kill -9 in mid-run, then the same call again: weights, traces and moments equal those of an undisturbed run."""
    torch.set_num_threads(1)
    path = tmp_path / "killed.safetensors"
    code = "from tests.adapters.training.test_resume import child; child()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "step 4":
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    at_kill = load_file(path)["trace"]
    resumed = train(path)
    whole = train(tmp_path / "whole.safetensors")
    assert not torch.equal(at_kill, whole["trace"])
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_runs_are_deterministic_for_a_seed(tmp_path: Path) -> None:
    """Two runs of one seed agree in every bit; another seed gives other weights."""
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["parameter"], train(tmp_path / "c", seed=1)["parameter"])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Other data or settings do not continue from this checkpoint: CheckpointMismatch, nothing trained."""
    train(tmp_path / "c", run="one")
    with pytest.raises(CheckpointMismatch):
        train(tmp_path / "c", run="another")
