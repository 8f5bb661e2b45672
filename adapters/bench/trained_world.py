"""A benchmark's world whose subset bank is trained: what its rows are judged with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.bench.peers.reader import World
from adapters.training.bank import Bank, BankConfig
from adapters.training.config import HeadConfig
from adapters.training.fitting import Fitting
from adapters.training.lds import Outcomes
from adapters.training.outcomes import outcomes
from adapters.training.progress import Progress
from adapters.training.tokens import TokenExample


@dataclass(frozen=True)
class TrainedWorld:
    """A world, its adapter and Datanet, the queries, the bank, and each query's margin under every run."""

    world: World
    fitting: Fitting
    queries: list[TokenExample]
    bank: Bank
    measured: Outcomes

    @classmethod
    def load(cls, directory: Path, config: BankConfig, threads: int, progress: Progress) -> TrainedWorld:
        """`directory` is DIR/NAME-world as `build_world` leaves it, beside its package and export; missing runs of the
        bank are trained. Raises what the bank and the head fit raise."""
        world = World(directory)
        root, name = directory.parent, directory.name.removesuffix("-world")
        head = HeadConfig(threads=threads)
        fitting = Fitting.load(root / name, root / f"{name}-export", Path(world.facts["base"]), head, progress)
        queries = [TokenExample(line.owner, line.ids, line.supervised) for line in world.queries]
        bank = fitting.bank(config)
        bank.train(progress)
        return cls(world, fitting, queries, bank, outcomes(bank, queries, progress))
