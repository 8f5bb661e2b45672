"""A run of one seed, from a fresh world to closed books; how it says that a law was broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.metering.simulator.clock import virtual_time
from tests.metering.simulator.database import Crash
from tests.metering.simulator.law import Broken
from tests.metering.simulator.world import World


class Failure(AssertionError):
    """A run that broke a law: the law's name, what was found, and the command that replays it."""

    def __init__(self, seed: int, error: BaseException, trace: list[str]) -> None:
        self.law = error.name if isinstance(error, Broken) else type(error).__name__
        self.seed = seed
        self.trace = trace
        replay = f"replay: python -m tests.metering.simulator --seed {seed}"
        super().__init__(f"seed {seed}, step {len(trace)}: {type(error).__name__} {error}\n{replay}")


@contextmanager
def world(seed: int, root: Path) -> Iterator[World]:
    """A fresh world of that seed under `root`, with its time and its stores in place of the real ones."""
    made = World(seed, root)
    with virtual_time(made.clock, made.dice), made.settlers.in_place():
        try:
            yield made
        finally:
            made.close()


def run(seed: int, root: Path, steps: int = 40) -> list[str]:
    """Simulate one seed; its trace. Raises Failure when a law breaks or the code raises what it should not."""
    with world(seed, root) as simulated:
        try:
            if simulated.has_office:
                simulated.warm_up()
            for _ in range(steps):
                simulated.step()
            simulated.quiesce()
        except (Exception, Crash) as error:
            raise Failure(seed, error, simulated.trace) from error
        return simulated.trace
