"""Compositions made for requests: made once, forgotten by last use, and never half there."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.compositions import KEPT_MS, TOUCHED_MS, Compositions
from adapters.database import Database
from adapters.datanet import DatanetStore
from adapters.errors import (
    AdapterNotFound,
    AdapterRevoked,
    CompositionsFull,
    PackageTooLarge,
    RankTooHigh,
)
from adapters.package import PackageLimits
from adapters.registry import Registry
from tests.adapters.conftest import RANK, PackageKit


@dataclass
class World:
    """A registry with the adapters pia/a, pia/b and pia/c, under a clock that tests set."""

    registry: Registry
    digests: list[str]
    now: list[int]

    def open(self, limit_bytes: int = 1 << 30) -> Compositions:
        return Compositions(self.registry, self.directory, "operator", limit_bytes)

    @property
    def directory(self):
        return self.registry.database.path.parent / "adapters"

    def parts(self, *weights_ppm: int) -> dict[str, int]:
        """Weights of the adapters in the order of their names; 0 leaves one out."""
        chosen = zip(self.digests, weights_ppm, strict=False)
        return dict(sorted((digest, weight) for digest, weight in chosen if weight))


@pytest.fixture
def world(base, tmp_path):
    now = [1_700_000_000_000]
    database = Database(tmp_path / "registry.db", clock=lambda: now[0])
    store = DatanetStore(database)
    store.create("facts", owner="olga", licence="CC0-1.0", title="Facts")
    store.contribute("facts", b'{"text": "Ann writes."}\n', acting="ann")
    version = store.version("facts", acting="olga").value()["version"]
    registry = Registry(database, tmp_path / "adapters", base)
    registry.claim("pia", acting="pia")
    digests = []
    for seed, name in enumerate("abc"):
        kit = PackageKit(base, tmp_path / name).reseed(seed)
        kit.write()
        kit.write_record("facts", version, {"ann": 10})
        kit.write_head(version, ["ann"])
        digests.append(registry.register(f"pia/{name}", kit.directory, acting="pia").adapter.digest)
    yield World(registry, digests, now)
    database.close()


def test_the_same_parts_are_found_again_and_by_digest(world):
    """Built once: facts and digest are those of what is registered by hand; its documents are for the log, once."""
    compositions, parts = world.open(), world.parts(700_000, 300_000)
    assert compositions.find(parts) is None
    built = compositions.build(parts)
    assert (built.composed_of, built.contributors, built.publisher) == (parts, ("ann",), "operator")
    assert compositions.find(parts) == compositions.build(parts) == compositions.by_digest(built.digest) == built
    assert compositions.find(world.parts(300_000, 700_000)) is None
    kinds = [document.kind for _, document in DatanetStore(world.registry.database).documents_after(0)]
    assert kinds.count("composition") == 1
    with pytest.raises(AdapterNotFound):
        world.registry.by_digest(built.digest)  # not registered: nobody may publish it as a part
    registered = world.registry.register("pia/sum", built.directory, acting="pia").adapter
    assert (registered.digest, registered.declared) == (built.digest, built.declared)
    assert compositions.find(parts) == registered
    world.registry.revoke(built.digest, acting="pia")
    with pytest.raises(AdapterRevoked):
        compositions.find(parts)


def test_the_least_recently_used_make_room(world):
    """Files go in the order of last use, facts stay; what was used within the minute stays whatever comes."""
    first, second, third = (world.parts(one, 1_000_000) for one in (100_000, 200_000, 300_000))
    size = sum(path.stat().st_size for path in world.open().build(first).directory.iterdir())
    compositions = world.open(2 * size + size // 2)
    kept = [compositions.build(parts).digest for parts in (first, second)]
    with pytest.raises(CompositionsFull):
        compositions.build(third)
    world.now[0] += KEPT_MS + TOUCHED_MS
    assert compositions.find(first) is not None  # used: the second is older now
    compositions.build(third)
    assert compositions.find(second) is None
    assert compositions.by_digest(kept[1]).composed_of == second
    assert not compositions.by_digest(kept[1]).directory.exists()
    assert compositions.find(first) is not None
    world.now[0] += 2 * KEPT_MS
    assert compositions.build(second).digest == kept[1]


def test_a_registered_composition_keeps_its_files(world):
    """Room is made by forgetting that a request asked for it; the registered package stays."""
    parts = world.parts(700_000, 300_000)
    built = world.open().build(parts)
    world.registry.register("pia/sum", built.directory, acting="pia")
    world.now[0] += 2 * KEPT_MS
    size = sum(path.stat().st_size for path in built.directory.iterdir())
    world.open(size).build(world.parts(1, 2))
    assert built.directory.is_dir()


KILLED = """
import json, os, signal, sys
from pathlib import Path
import adapters.compositions, adapters.install
from adapters.base import BaseModel
from adapters.compositions import Compositions
from adapters.database import Database
from adapters.registry import Registry

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

data, base, step, parts = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
registry = Registry(Database(data / "registry.db"), data / "adapters", BaseModel.from_directory(base))
steps = {
    "composed": (adapters.compositions, "composed_facts"),
    "sealed": (adapters.install.Installation, "is_intact"),
    "renamed": (adapters.install, "_sync"),
    "documents": (adapters.compositions.outbox, "record"),
}
setattr(*steps[step], die)
Compositions(registry, data / "adapters", "operator", 1 << 30).build(parts)
"""


@pytest.mark.parametrize("step", ["composed", "sealed", "renamed", "documents"])
def test_a_killed_build_leaves_nothing(world, make_base, tmp_path, step):
    """kill -9 between any two steps: no row, no document, and after recovery no file; then it is built as ever."""
    parts, before = world.parts(700_000, 300_000), sorted(world.directory.rglob("*"))
    documents = world.registry.database.row("SELECT count(*) FROM documents")
    arguments = [tmp_path, make_base(tmp_path / "base"), step, json.dumps(parts)]
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert world.open().find(parts) is None
    assert world.registry.database.row("SELECT count(*) FROM documents") == documents
    world.now[0] *= 2  # work in progress is swept by its age, which the file system's clock gives
    world.registry.recover()
    assert sorted(world.directory.rglob("*")) == before
    assert world.open().build(parts).composed_of == parts


@pytest.mark.parametrize("lost", ["row", "files"])
def test_half_of_a_composition_is_none(world, lost):
    """After a crash between files and row, recovery leaves neither; then it is built again, with the same digest."""
    compositions, parts = world.open(), world.parts(700_000, 300_000)
    built = compositions.build(parts)
    if lost == "row":
        with world.registry.database.transaction() as connection:
            connection.execute("DELETE FROM compositions")
        assert world.registry.recover() == 1
        assert not built.directory.exists()
    else:
        built.directory.rename(built.directory.with_name("lost"))
        assert compositions.find(parts) is None
    assert compositions.build(parts).digest == built.digest
    assert world.registry.recover() == 0
    assert built.directory.is_dir()


def test_what_cannot_be_composed_leaves_nothing(world):
    """A revoked or unknown part, ranks over the limit, more bytes than all may take."""
    before = sorted(world.directory.rglob("*"))
    with pytest.raises(AdapterNotFound):
        world.open().build({"sha256:" + "1" * 64: 1, **world.parts(1)})
    with pytest.raises(PackageTooLarge):
        world.open(1000).build(world.parts(1, 2))
    limits, world.registry.limits = world.registry.limits, PackageLimits(max_rank=3 * RANK - 1)
    with pytest.raises(RankTooHigh):
        world.open().build(world.parts(1, 2, 3))
    world.registry.limits = limits
    world.registry.revoke(world.digests[0], acting="pia")
    with pytest.raises(AdapterRevoked):
        world.open().build(world.parts(1, 2))
    assert sorted(world.directory.rglob("*")) == before
    assert world.registry.database.row("SELECT count(*) FROM compositions") == (0,)
