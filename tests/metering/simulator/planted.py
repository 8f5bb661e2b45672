"""`python -m tests.metering.simulator.planted`: which law catches which planted bug, as docs/RELIABILITY.md has it."""

from __future__ import annotations

import multiprocessing
from typing import NamedTuple

from tests.metering.simulator.__main__ import run_many
from tests.metering.simulator.mutations import MUTATIONS, Mutation
from tests.metering.simulator.run import Failure

SEEDS_TO_CATCH = 300


class Caught(NamedTuple):
    """The law that broke first (or the exception), and the seed of that run."""

    law: str
    seed: int


def catch(mutation: Mutation) -> Caught | None:
    """Simulate SEEDS_TO_CATCH seeds with the bug planted; None when no law breaks."""
    with mutation.planted():
        try:
            run_many(0, SEEDS_TO_CATCH)
        except Failure as failure:
            return Caught(failure.law, failure.seed)
    return None


def catch_all() -> dict[str, Caught | None]:
    """All of them by name, on all cores."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        found = pool.map(catch, MUTATIONS, chunksize=1)
    return {mutation.name: caught for mutation, caught in zip(MUTATIONS, found, strict=True)}


def main() -> int:
    found = catch_all()
    print("| planted bug | caught by | seed |\n|---|---|---|")
    for name, caught in found.items():
        law = "constraint of the table" if caught and caught.law == "ConstraintError" else caught and caught.law
        print(f"| {name} | {law or '**nothing**'} | {caught.seed if caught else ''} |")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
