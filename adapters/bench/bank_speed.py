"""What a retraining of a half subset costs, by dtype, runs a batch and processes, beside one plain run.

Each way trains the same half subsets for one epoch; ways take turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.bench.peers.reader import World
from adapters.training.bank import Bank, BankConfig
from adapters.training.config import HeadConfig
from adapters.training.fitting import Fitting
from adapters.training.progress import Progress, silent

WAYS: dict[str, Mapping[str, Any]] = {
    "plain: float32, one run, two threads": {"dtype": "float32", "workers": 1, "threads": 2},
    "bfloat16, one run, two threads": {"dtype": "bfloat16", "workers": 1, "threads": 2},
    "bfloat16, four runs a batch, two threads": {"dtype": "bfloat16", "workers": 1, "threads": 2, "batch": 4},
    "bfloat16, two processes of one thread": {"dtype": "bfloat16", "workers": 2, "threads": 1},
}
RUNS = 4


def bank_speed(world_dir: Path, rounds: int = 3, progress: Progress = silent) -> dict[str, Any]:
    """Worker seconds of one half subset for one epoch, loading left out, divided by the processes that share them.

    Per way the median and all rounds; `ratio` to the plain way of the same round.
    """
    world = World(world_dir)
    root, name = world_dir.parent, world_dir.name.removesuffix("-world")
    head = HeadConfig(threads=1)
    fitting = Fitting.load(root / name, root / f"{name}-export", Path(world.facts["base"]), head, progress)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for done in range(rounds):
        for way, settings in WAYS.items():
            config = BankConfig(subsets=RUNS, seeds=1, leave_one_out=False, **settings)
            with tempfile.TemporaryDirectory() as folder:
                whole = fitting.subject(config.dtype)
                bank = Bank(Path(folder), replace(whole, training=replace(whole.training, max_epochs=1)), config)
                bank.train(at_most=RUNS)
                seconds[way].append(statistics.mean(bank.milliseconds()) / 1e3 / config.workers)
        progress("bank speed", done + 1, rounds, "")
    plain = seconds[next(iter(WAYS))]
    return {
        way: {
            "seconds": round(statistics.median(found), 2),
            "ratio": round(statistics.median(a / b for a, b in zip(found, plain, strict=True)), 3),
            "rounds": [round(one, 2) for one in found],
        }
        for way, found in seconds.items()
    }
