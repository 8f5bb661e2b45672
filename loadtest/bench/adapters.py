"""Puts the benchmark's adapters in place: random weights, registered once with a head and once without."""

import os
from dataclasses import dataclass
from pathlib import Path

from loadtest.api import Gateway
from loadtest.bench.settings import ADAPTER, CONTRIBUTORS, SIZES
from loadtest.packages import Base, Shape, archive, write_head, write_package

DATANET = "bench-data"
LICENCE = "CC0-1.0"


@dataclass
class AdapterStore:
    """Packages on disk and their registrations. `hexes` maps a registered name to its digest's 64 hex digits."""

    base: Base
    directory: Path
    operator: Gateway
    hexes: dict[str, str]
    version: str
    contributors: list[str]

    @classmethod
    def open(cls, base: Base, directory: Path, operator: Gateway) -> "AdapterStore":
        """Makes the Datanet that heads must name: one example for each contributor."""
        operator.post(
            "/datanets", {"name": DATANET, "licence": LICENCE, "title": "of a benchmark", "near_duplicates": "accept"}
        )
        contributors = [f"bench-{number}" for number in range(CONTRIBUTORS)]
        for name in contributors:
            operator.post("/accounts", {"name": name})
            example = f'{{"text":"an example of {name}"}}\n'.encode()
            operator.upload(f"/datanets/{DATANET}/contributions", example, contributor=name)
        version = operator.post(f"/datanets/{DATANET}/versions")["document"]["version"]
        return cls(base, directory, operator, {}, version, contributors)

    def add(self, number: int) -> None:
        """Adapter `number` under `on_name` (with head) and `off_name` (without): the same weights."""
        plain = write_package(self.base, self.path(number), ADAPTER, seed=number)
        self._register(plain, off_name(number))
        self._register(self._with_head(plain, ADAPTER, number), on_name(number))

    def add_size(self, size: str) -> str:
        """An adapter with head of one of SIZES; returns its name."""
        number = list(SIZES).index(size)
        plain = write_package(self.base, self.directory / f"size-{number}", SIZES[size], seed=1_000_000 + number)
        name = f"{DATANET}/size-{number}"
        self._register(self._with_head(plain, SIZES[size], 1_000_000 + number), name)
        return name

    def path(self, number: int) -> Path:
        """The package without head, which bare vLLM reads, too."""
        return self.directory / f"adapter-{number}"

    def _with_head(self, plain: Path, shape: Shape, seed: int) -> Path:
        directory = plain.with_name(f"{plain.name}-head")
        directory.mkdir()
        for path in plain.iterdir():
            os.link(path, directory / path.name)
        write_head(self.base, directory, shape, seed, self.contributors, self.version)
        return directory

    def _register(self, package: Path, name: str) -> None:
        digest = self.operator.upload("/adapters", archive(package), name=name)["digest"]
        self.hexes[name] = digest.removeprefix("sha256:")


def on_name(number: int) -> str:
    return f"{DATANET}/on-{number}"


def off_name(number: int) -> str:
    return f"{DATANET}/off-{number}"


def bare_name(number: int) -> str:
    """What an adapter is called at bare vLLM."""
    return f"adapter-{number}"
