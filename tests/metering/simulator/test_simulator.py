"""The simulator finds no broken law in the meter, and finds every planted one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.metering.simulator.__main__ import make_root, run_many
from tests.metering.simulator.mutations import MUTATIONS, Mutation
from tests.metering.simulator.world import Failure, run

RUNS = 300
SEEDS_TO_CATCH = 150


@pytest.fixture
def root():
    made = make_root()
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("first_seed", range(0, RUNS, 100))
def test_every_law_holds_in_every_run(first_seed):
    """Crashes, torn writes, duplicates, reordering, full disks and wrong clocks: all invariants after every step."""
    assert run_many(first_seed, 100) == 100 * 40


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_caught(mutation: Mutation):
    """Each mutation of the real code breaks a law within SEEDS_TO_CATCH seeds, so each law guards something."""
    with mutation.planted(), pytest.raises(Failure):
        run_many(0, SEEDS_TO_CATCH)


def test_a_seed_replays(root: Path):
    """The same seed does the same, byte for byte: a failure found once can be looked at again."""
    traces, ledgers = [], []
    for _ in range(2):
        traces.append(run(4, root))
        ledgers.append(hashlib.sha256((root / "run-4" / "ledger.db").read_bytes()).hexdigest())
        shutil.rmtree(root / "run-4")
    assert traces[0] == traces[1]
    assert ledgers[0] == ledgers[1]


def test_a_failure_says_how_to_replay_it(root: Path):
    """The message of a failed run ends with the one command that runs it again."""
    mutation = next(mutation for mutation in MUTATIONS if mutation.name == "lose residue")
    with mutation.planted(), pytest.raises(Failure, match=r"(?s)seed \d+, step \d+: .*simulator --seed \d+"):
        run_many(0, SEEDS_TO_CATCH)
