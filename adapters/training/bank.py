"""The subset bank: the adapter's own recipe retrained on many subsets of the contributors, kept as weights on disk.

    bank.json                          what was trained on what: base, Datanet version, contributors, hyperparameters
    runs/<run>.safetensors             B of one run (behind it A, where that is trained), written when the run is done
    margins/<texts>/<run>.safetensors  margins of a set of texts under one run, measured on demand

A bank that is killed loses the runs in progress and goes on with the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapters.canonical import canonical_json
from adapters.training.bank_worker import Work, measure_job, prepare, read, run_path, train_job
from adapters.training.config import TrainingConfig
from adapters.training.errors import BankCorrupted, BankIncomplete, BankInterrupted, BankMismatch
from adapters.training.progress import Progress, silent
from adapters.training.subsets import HALF, KINDS, Run, parse_run, plan
from adapters.training.tokens import TokenExample


@dataclass(frozen=True)
class BankConfig:
    """Size of a bank and how it is trained.

    `subsets` half subsets for each of `seeds` retraining seeds, counted from `first_seed` (the adapter's own seed must
    not be among them); per seed also the whole Datanet and, with `leave_one_out`, each contributor left out. `batch`
    runs share a forward pass; `workers` processes of `threads` threads each. `dtype` of the frozen base while
    retraining, None for the adapter's own: bfloat16 is faster where the processor has it.
    """

    subsets: int = 32
    seeds: int = 2
    first_seed: int = 1
    leave_one_out: bool = True
    design_seed: int = 0
    batch: int = 1
    workers: int = 2
    threads: int = 1
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("subsets", "seeds", "first_seed", "batch", "workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def runs(self, contributors: int) -> list[Run]:
        """Every run of the bank, in the order they are trained."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return plan(contributors, self.subsets, seeds, leave_one_out=self.leave_one_out, design_seed=self.design_seed)


@dataclass(frozen=True)
class Subject:
    """What a bank retrains: digests of base and Datanet version, the recipe, and the examples of all contributors."""

    base_dir: Path
    base: str
    datanet_version: str
    training: TrainingConfig
    contributors: tuple[str, ...]
    examples: tuple[TokenExample, ...]

    def facts(self) -> dict[str, Any]:
        """What bank.json says; a bank of other facts is another bank."""
        recipe = {key: value for key, value in self.training.record().items() if key != "threads"}
        return {
            "base": self.base,
            "contributors": list(self.contributors),
            "datanet_version": self.datanet_version,
            "hyperparameters": recipe,
            "type": "subset-bank",
        }


class Bank:
    """A bank directory and its plan; runs may still be missing. Raises BankMismatch for another subject's directory."""

    def __init__(self, directory: Path, subject: Subject, config: BankConfig) -> None:
        self.directory, self.subject, self.config = directory, subject, config
        self.runs = config.runs(len(subject.contributors))
        self._runs_folder = directory / "runs"
        self._runs_folder.mkdir(parents=True, exist_ok=True)
        facts, path = canonical_json(subject.facts()), directory / "bank.json"
        if not path.exists():
            path.write_bytes(facts)
        elif path.read_bytes() != facts:
            raise BankMismatch(f"{directory} is the bank of another Datanet version, base or recipe")

    @property
    def missing(self) -> list[Run]:
        """Planned runs that are not on disk."""
        return [run for run in self.runs if not run_path(self._runs_folder, run).is_file()]

    def train(self, progress: Progress = silent, at_most: int | None = None) -> int:
        """Train what is missing, or so many runs of it; how many were trained.

        Raises BankInterrupted when a worker dies; what is finished stays.
        """
        missing = self.missing[:at_most]
        groups = _groups(missing, self.config.batch)
        done = len(self.runs) - len(self.missing)
        progress("subset bank", done, len(self.runs), "")
        for group, seconds in self._work(train_job, [(group, self._runs_folder) for group in groups]):
            done += len(group)
            progress("subset bank", done, len(self.runs), f"{seconds:.1f} s a run in each of {self.config.workers}")
        return len(missing)

    def margins(self, texts: Sequence[TokenExample], runs: Sequence[Run], progress: Progress = silent) -> Tensor:
        """Margins [len(runs), N] in nats of the supervised tokens of `texts` under trained runs; kept on disk.

        Tokens in the order of the texts. Raises BankIncomplete, BankInterrupted, BankCorrupted.
        """
        absent = [run.name for run in runs if not run_path(self._runs_folder, run).is_file()]
        if absent:
            raise BankIncomplete(f"{self.directory} lacks {len(absent)} runs, among them {absent[0]}")
        folder = self._margins_folder(texts)
        folder.mkdir(parents=True, exist_ok=True)
        groups = _groups([run for run in runs if not run_path(folder, run).is_file()], self.config.batch)
        done = 0
        jobs = [(group, tuple(texts), self._runs_folder, folder) for group in groups]
        for group, _ in self._work(measure_job, jobs):
            done += len(group)
            progress("measuring the bank", done, sum(map(len, groups)), "")
        try:
            return torch.stack([read(run_path(folder, run), "margins") for run in runs])
        except (SafetensorError, RuntimeError) as error:
            raise BankCorrupted(f"{folder} holds a damaged file ({error}); remove it to measure again") from None

    def forget(self, texts: Sequence[TokenExample]) -> None:
        """Remove what `margins` kept of these texts."""
        shutil.rmtree(self._margins_folder(texts), ignore_errors=True)

    def kept(self) -> list[Run]:
        """Every run on disk, planned or not. BankCorrupted where something else lies among them."""
        try:
            return [parse_run(path.stem) for path in sorted(self._runs_folder.glob("*.safetensors"))]
        except ValueError as error:
            raise BankCorrupted(f"{self._runs_folder}: {error}") from None

    def milliseconds(self, texts: Sequence[TokenExample] | None = None) -> list[int]:
        """Worker time of each half-subset run on disk: of its training, or of measuring `texts` under it.

        BankCorrupted for files of an earlier release, which did not note it.
        """
        folder = self._runs_folder if texts is None else self._margins_folder(texts)
        paths = [run_path(folder, run) for run in self.runs if run.kind == HALF]
        return [_milliseconds(path) for path in paths if path.is_file()]

    @property
    def bytes(self) -> int:
        """Size of the runs on disk."""
        return sum(path.stat().st_size for path in self._runs_folder.iterdir())

    def _margins_folder(self, texts: Sequence[TokenExample]) -> Path:
        return self.directory / "margins" / _digest(texts)

    def _work(self, job: Callable[..., float], arguments: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, float]]:
        """Run `job` over `arguments` in worker processes; the first argument of each that is done, and what it gave."""
        if not arguments:
            return
        work = Work(self.subject.base_dir, self.subject.training, self.subject.examples, self.config.threads)
        pool = ProcessPoolExecutor(self.config.workers, get_context("spawn"), prepare, (work,))
        try:
            first = {pool.submit(job, *given): given[0] for given in arguments}
            for future in as_completed(first):
                yield first[future], future.result()
        except BrokenProcessPool:
            raise BankInterrupted(f"a worker of the bank died; start again to go on ({self.directory})") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _milliseconds(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        noted = (file.metadata() or {}).get("milliseconds")
    if noted is None:
        raise BankCorrupted(f"{path} does not say how long it took; remove {path.parent} to measure again")
    return int(noted)


def _groups(runs: Sequence[Run], size: int) -> list[tuple[Run, ...]]:
    """Runs that train side by side: of one kind, so that they take about equally many steps."""
    return [
        tuple(same[i : i + size])
        for same in ([run for run in runs if run.kind == kind] for kind in KINDS)
        for i in range(0, len(same), size)
    ]


def _digest(texts: Sequence[TokenExample]) -> str:
    """Names a set of texts: their tokens and what is supervised of them."""
    return sha256(repr([(text.ids, text.supervised) for text in texts]).encode()).hexdigest()[:16]
