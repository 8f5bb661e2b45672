"""The simulator finds no broken law in the meter, and finds every planted one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.metering.simulator.__main__ import make_root, run_many
from tests.metering.simulator.mutations import MUTATIONS
from tests.metering.simulator.planted import SEEDS_TO_CATCH, Caught, catch_all
from tests.metering.simulator.run import Failure, run

FIRST_SEEDS = (0, 100_000, 200_000, 300_000)
RUNS_EACH = 750
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def root():
    made = make_root()
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("first_seed", FIRST_SEEDS)
def test_every_law_holds_in_every_run(first_seed: int):
    """Crashes, torn writes, duplicates, reordering, full disks, wrong clocks, a killed bus: all laws after every step.

    By the command that a person uses, on all cores.
    """
    command = [sys.executable, "-m", "tests.metering.simulator", f"--runs={RUNS_EACH}", f"--first-seed={first_seed}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"{RUNS_EACH} runs, {RUNS_EACH * 40} steps, 0 failures"), done.stdout + done.stderr
    assert done.returncode == 0


@pytest.fixture(scope="module")
def caught() -> dict[str, Caught | None]:
    return catch_all()


@pytest.mark.parametrize("name", [mutation.name for mutation in MUTATIONS])
def test_a_planted_bug_is_caught(name: str, caught: dict[str, Caught | None]):
    """Each mutation of the real code breaks a law within SEEDS_TO_CATCH seeds, so each law guards something."""
    assert caught[name] is not None


@pytest.mark.parametrize("seed", [3, 4], ids=["bus", "journal"])
def test_a_seed_replays(root: Path, seed: int):
    """The same seed does the same, byte for byte: a failure found once can be looked at again."""
    traces, ledgers = [], []
    for _ in range(2):
        traces.append(run(seed, root))
        ledgers.append(hashlib.sha256((root / f"run-{seed}" / "ledger.db").read_bytes()).hexdigest())
        shutil.rmtree(root / f"run-{seed}")
    assert traces[0] == traces[1]
    assert ledgers[0] == ledgers[1]


def test_a_failure_says_how_to_replay_it(root: Path):
    """The message of a failed run ends with the one command that runs it again."""
    mutation = next(mutation for mutation in MUTATIONS if mutation.name == "lose residue")
    with mutation.planted(), pytest.raises(Failure, match=r"(?s)seed \d+, step \d+: .*simulator --seed \d+"):
        run_many(0, SEEDS_TO_CATCH)
