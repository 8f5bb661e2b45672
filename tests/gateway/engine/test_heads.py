"""Heads on the worker."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gateway.engine.heads import HEAD_FILE, HeadMismatchError, HeadStore, head_contributors, head_factors, read_head

D, VOCAB, TAPS = 12, 90, {"a": 0, "b": 1, "c": 2}
RANKS = {"a": 2, "b": 2, "c": 4}


def write_head(
    directory: Path, *, taps: tuple[str, ...] = ("c", "a"), seed: int = 0, k: int = 4, **metadata: str
) -> Path:
    directory.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    described = {"format": "openledger-head/1", "taps": json.dumps(taps), "contributors": json.dumps(["x", "y", "z"])}
    tensors = {"K": torch.randn(3, len(taps), k, 2), "P": torch.randn(D, k)}
    save_file(tensors, directory / HEAD_FILE, described | metadata)
    return directory


@pytest.fixture
def store() -> HeadStore:
    return HeadStore(torch.randn(VOCAB, D), torch.rand(D) + 0.5, TAPS)


def test_a_package_without_head_is_served_unscored(store: HeadStore, tmp_path: Path) -> None:
    """No head file means no head, not an error."""
    store.load(1, tmp_path, RANKS)
    assert store.get(1) is None
    assert head_contributors(str(tmp_path)) == ()


def test_taps_are_looked_up_by_name_in_the_heads_order(store: HeadStore, tmp_path: Path) -> None:
    """The head's tap order is its own; the store maps it onto the buffer's rows."""
    store.load(1, write_head(tmp_path), RANKS)
    entry = store.get(1)
    assert entry is not None
    assert entry.bank.taps.tolist() == [2, 0]
    assert head_contributors(str(tmp_path)) == ("x", "y", "z")


def test_memory_does_not_grow_with_the_vocabulary(store: HeadStore, tmp_path: Path) -> None:
    """A head takes what its own tensors take, contributors rounded up to 8, whatever directions it has."""
    before = store.memory_bytes()
    taken = store.load(1, write_head(tmp_path / "one"), RANKS)
    assert taken == store.memory_bytes() - before == 4 * (8 * 2 * 4 * 2 + 4 * D)


def test_a_freed_row_of_a_bank_is_used_again_and_holds_only_the_new_head(store: HeadStore, tmp_path: Path) -> None:
    """Memory does not grow with adapters that came and went, and nothing of the old head shines through."""
    store.load(1, write_head(tmp_path / "one"), RANKS)
    before = store.memory_bytes()
    for adapter_id in range(2, 9):
        store.forget(adapter_id - 1)
        store.load(adapter_id, write_head(tmp_path / str(adapter_id), seed=adapter_id), RANKS)
    assert store.memory_bytes() == before
    seated, head = store.get(8), read_head(tmp_path / "8")
    assert seated is not None
    assert head is not None
    u, h, slot = torch.randn(1, D), torch.randn(1, 2, 2), torch.tensor([seated.row])
    scores = seated.bank.scores(u, h, slot)[0]
    torch.testing.assert_close(scores[:3], torch.einsum("k,clkr,lr->c", head.P @ u[0], head.K, h[0]))
    assert not scores[3:].any()


@pytest.mark.parametrize(
    "change",
    [{"taps": ("a", "nowhere")}, {"format": "openledger-head/9"}, {"contributors": json.dumps(["x"])}],
    ids=["unknown tap", "unknown format", "wrong contributors"],
)
def test_a_head_that_does_not_fit_is_refused(store: HeadStore, tmp_path: Path, change: dict) -> None:
    """A mismatch is a named error and leaves nothing behind."""
    with pytest.raises(HeadMismatchError):
        store.load(1, write_head(tmp_path, **change), RANKS)
    assert store.get(1) is None


@pytest.mark.parametrize("ranks", [{"a": 1, "c": 2}, {"c": 2}], ids=["lower rank", "module left alone"])
def test_a_head_for_more_than_the_adapter_computes_is_refused(store: HeadStore, tmp_path: Path, ranks: dict) -> None:
    """Beyond the adapter's rank the tap buffer holds another adapter's numbers."""
    with pytest.raises(HeadMismatchError):
        store.load(1, write_head(tmp_path), ranks)


def test_a_truncated_head_is_an_error(tmp_path: Path) -> None:
    """Half a file is never half a head."""
    path = write_head(tmp_path) / HEAD_FILE
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Exception, match=r"(?i)header|incomplete|metadata"):
        read_head(tmp_path)


def test_contributor_factors_stay_out_of_the_worker(store: HeadStore, tmp_path: Path) -> None:
    """A head of 40 contributors in 2 factors is 2 scores wide there; its API process turns them into 40."""
    metadata = {"contributors": json.dumps([f"c{i:02}" for i in range(40)])}
    factors = torch.randn(40, 2)
    path = write_head(tmp_path, **metadata) / HEAD_FILE
    with safe_open(path, framework="pt") as file:
        described, K = file.metadata(), file.get_tensor("K")
    save_file({"K": K[:2].contiguous(), "P": torch.randn(D, 4), "Q": factors}, path, described)
    store.load(1, tmp_path, RANKS)
    seated = store.get(1)
    assert seated is not None
    assert seated.width == 2
    np.testing.assert_array_equal(head_factors(str(tmp_path)), factors.T.double())
    assert len(head_contributors(str(tmp_path))) == 40
