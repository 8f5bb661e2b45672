"""Rows are scored once, kept, and say why when they cannot be scored."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from adapters.bench.errors import BadWorld, UnknownRow
from adapters.bench.peer_rows import peer_rows
from adapters.bench.peers.reader import World
from adapters.bench.rows import ENVIRONMENTS, ROWS
from adapters.bench.table import measured, table
from adapters.training.baselines import bm25

CONSTANTS = [name for name, row in ROWS.items() if row.module == "constants"]


@pytest.fixture
def own_world(world_dir: Path, tmp_path: Path) -> Path:
    """A copy to write scores into."""
    return shutil.copytree(world_dir, tmp_path / "world")


def test_rows_without_a_model_are_scored_here(own_world: Path) -> None:
    """The constants, the oracle and BM25, each [queries, contributors], as their definitions say."""
    world = World(own_world)
    found = {name: scores for name, (scores, _) in peer_rows(own_world, CONSTANTS).items()}
    assert found["oracle-owner"].argmax(1).tolist() == [query.owner for query in world.queries]
    assert found["data-size"][0].tolist() == [
        sum(sum(line.supervised) for line in world.train if line.owner == c) for c in range(3)
    ]
    assert not found["uniform"].any()
    texts, owners = [line.text for line in world.train], world.owners.tolist()
    torch.testing.assert_close(found["bm25"], bm25([q.text for q in world.queries], texts, owners, 3))


def test_a_finished_row_is_reused_until_the_adapter_changes(own_world: Path) -> None:
    """Nothing is scored twice for the same weights; other weights are scored anew."""
    peer_rows(own_world, ["uniform"])
    file = own_world / "peers" / "uniform.safetensors"
    before = file.stat().st_mtime_ns
    peer_rows(own_world, ["uniform"])
    assert file.stat().st_mtime_ns == before
    facts = json.loads((own_world / "world.json").read_text())
    (own_world / "world.json").write_text(json.dumps({**facts, "weights": "sha256:other"}))
    _, again = peer_rows(own_world, ["uniform"])["uniform"]
    assert again["weights"] == "sha256:other"


def test_a_row_that_runs_out_of_time_says_so_and_the_next_one_runs(own_world: Path) -> None:
    """A slow peer leaves its reason in peers/<row>.json and in the table; the others are scored."""
    found = peer_rows(own_world, ["repsim", "uniform"], limit_s=0)
    assert found["repsim"] == (None, {"reason": "not done after 0 s", "limit_s": 0})
    assert json.loads((own_world / "peers" / "repsim.json").read_text())["reason"] == "not done after 0 s"
    text = table(measured(own_world, found))
    assert "not run: not done after 0 s" in text
    assert "uniform" in text


def test_a_library_that_cannot_be_installed_is_a_reason(
    own_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip's last line is the row; nothing is left in the cache."""
    monkeypatch.setitem(ENVIRONMENTS, "minilm", ("./no-such-package-here",))
    scores, facts = peer_rows(own_world, ["embedding"], cache_dir=tmp_path / "cache")["embedding"]
    assert scores is None
    assert "no-such-package-here" in facts["reason"]
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_no_world_and_what_is_no_row_are_named(own_world: Path, tmp_path: Path) -> None:
    """BadWorld and UnknownRow, before anything is scored."""
    with pytest.raises(BadWorld, match="holds no world"):
        peer_rows(tmp_path)
    with pytest.raises(UnknownRow, match="no row magic"):
        peer_rows(own_world, ["magic"])
