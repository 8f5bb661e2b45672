"""`python -m tests.metering.simulator`: many seeds over the machine's cores, or one seed with its trace."""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.metering.simulator.run import Failure, run

MEMORY = Path("/dev/shm")  # a run is about logic: power cuts are simulated, so nothing waits for a real disk


def make_root() -> Path:
    return Path(tempfile.mkdtemp(prefix="openledger-simulator-", dir=MEMORY if MEMORY.is_dir() else None))


def run_many(first: int, count: int, steps: int = 40) -> int:
    """Simulate `count` seeds from `first` on; how many steps they took. Raises Failure at the first broken law."""
    root = make_root()
    taken = 0
    try:
        for seed in range(first, first + count):
            taken += len(run(seed, root, steps))
            shutil.rmtree(root / f"run-{seed}")
    finally:
        shutil.rmtree(root)
    return taken


def _part(steps: int, span: tuple[int, int]) -> int | str:
    try:
        return run_many(*span, steps)
    except Failure as failure:
        return str(failure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.metering.simulator", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40, help="actions in a run, before the faults end")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--seed", type=int, help="replay one seed and print what it does")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed, options.steps)
    began = time.monotonic()
    size = max(1, min(100, options.runs // options.processes))
    end = options.first_seed + options.runs
    spans = [(first, min(size, end - first)) for first in range(options.first_seed, end, size)]
    with multiprocessing.Pool(options.processes) as pool:
        outcomes = list(pool.imap_unordered(partial(_part, options.steps), spans))
        pool.close()
        pool.join()
    failures = [outcome for outcome in outcomes if isinstance(outcome, str)]
    for failure in failures:
        print(failure)
    taken = sum(outcome for outcome in outcomes if isinstance(outcome, int))
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime
    print(
        f"{options.runs} runs, {taken} steps, {len(failures)} failures, {seconds:.1f} s ({cpu_seconds:.1f} s of cores)"
    )
    if options.out:
        result = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "first_seed": options.first_seed, "runs": options.runs, "steps": taken, "failures": failures,
            "seconds": seconds, "cpu_seconds": cpu_seconds, "processes": options.processes,
            "load_average": os.getloadavg(),
        }  # fmt: skip
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if failures else 0


def replay(seed: int, steps: int) -> int:
    root = make_root()
    try:
        trace, failure = run(seed, root, steps), None
    except Failure as error:
        trace, failure = error.trace, error
    finally:
        shutil.rmtree(root)
    for number, line in enumerate(trace):
        print(f"{number:3}  {line}")
    print(failure or "every law held")
    return 1 if failure else 0


if __name__ == "__main__":
    raise SystemExit(main())
