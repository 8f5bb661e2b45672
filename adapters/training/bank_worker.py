"""What a worker process of the bank does: train groups of runs, measure texts under trained runs."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapters.training.config import TrainingConfig
from adapters.training.model import DTYPES, HiddenCache, load_base
from adapters.training.packs import common_prefix, make_packs
from adapters.training.retrain import Retrained, retrain, text_margins
from adapters.training.stack import StackedModel
from adapters.training.subsets import Run
from adapters.training.tokens import TokenExample


@dataclass(frozen=True)
class Work:
    """What every job of a bank shares."""

    base_dir: Path
    training: TrainingConfig
    examples: tuple[TokenExample, ...]
    threads: int


class Worker:
    """The base model of one process, with the lower layers' output of the texts it was last asked about."""

    def __init__(self, work: Work) -> None:
        torch.set_num_threads(work.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        base = load_base(work.base_dir, DTYPES[work.training.dtype]).to(device)
        self._training, self._examples = work.training, work.examples
        self._model = StackedModel(base, work.training)
        self._texts: tuple[TokenExample, ...] = ()
        self._cache: HiddenCache | None = None

    def train(self, runs: tuple[Run, ...]) -> list[Retrained]:
        """Train these runs side by side."""
        return retrain(self._model, self._lower(self._examples), runs, self._training)

    def margins(self, texts: tuple[TokenExample, ...], runs: tuple[Run, ...], parameters: Tensor) -> Tensor:
        """Margins [G, N] of the texts' supervised tokens under runs that trained `parameters` [G, P]."""
        cache = self._lower(texts)
        self._model.start([run.seed for run in runs])
        self._model.parameter.copy_(parameters)
        unowned = [replace(text, owner=0) for text in texts]
        packs = make_packs(unowned, cache.prefix, 256, random.Random(0))
        return text_margins(self._model, cache, [packs[i : i + 2] for i in range(0, len(packs), 2)])

    def _lower(self, texts: tuple[TokenExample, ...]) -> HiddenCache:
        if self._cache is None or self._texts != texts:
            self._texts, self._cache = texts, HiddenCache(self._model, texts, common_prefix(texts))
        return self._cache


_worker: Worker | None = None


def prepare(work: Work) -> None:
    """Load the base model into this process, which ends when the bank's process does."""
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(work)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def train_job(runs: tuple[Run, ...], folder: Path) -> float:
    """Train runs, write each to `folder`; seconds of one."""
    assert _worker is not None
    for done in _worker.train(runs):
        about = {"steps": done.steps, "loss_ppm": round(done.loss * 1e6), "milliseconds": round(done.seconds * 1e3)}
        write(run_path(folder, done.run), {"B": done.parameter}, {key: str(value) for key, value in about.items()})
    return done.seconds


def measure_job(runs: tuple[Run, ...], texts: tuple[TokenExample, ...], runs_folder: Path, folder: Path) -> int:
    """Measure texts under trained runs, write the margins of each to `folder`; how many runs."""
    assert _worker is not None
    started = time.monotonic()
    parameters = torch.stack([read(run_path(runs_folder, run), "B") for run in runs])
    found = list(zip(runs, _worker.margins(texts, runs, parameters), strict=True))
    about = {"milliseconds": str(round(1e3 * (time.monotonic() - started) / len(runs)))}
    for run, margins in found:
        write(run_path(folder, run), {"margins": margins.contiguous()}, about)
    return len(runs)


def run_path(folder: Path, run: Run) -> Path:
    """Where a run's tensors lie in a folder."""
    return folder / f"{run.name}.safetensors"


def read(path: Path, tensor: str) -> Tensor:
    """One tensor of a file. Raises OSError, SafetensorError."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(tensor)


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """All or nothing: beside the path, then renamed over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata)
    os.replace(temporary, path)
