"""Limits per API key."""

from pathlib import Path

import pytest

from gateway import limits as module
from gateway.errors import RateLimited
from gateway.limits import Limits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Settable time."""
    now = [6_000_010.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    return now


def test_requests_run_out_and_come_back(tmp_path: Path, clock: list[float]) -> None:
    """The header says when; a new minute starts at zero."""
    limits = Limits(tmp_path / "limits.db", 2, 1000)
    assert limits.admit("k", 10).remaining_requests == 1
    assert limits.admit("k", 10).remaining_tokens == 980
    with pytest.raises(RateLimited, match="requests per minute: limit 2, used 2") as caught:
        limits.admit("k", 10)
    assert caught.value.headers()["retry-after"] == "50"
    clock[0] += 50
    assert limits.admit("k", 10).remaining_requests == 1


def test_tokens_run_out_and_are_given_back(tmp_path: Path, clock: list[float]) -> None:
    """A refused request takes nothing; what was reserved and not generated returns."""
    limits = Limits(tmp_path / "limits.db", 10, 100)
    limits.admit("k", 80)
    with pytest.raises(RateLimited, match="tokens"):
        limits.admit("k", 30)
    limits.refund("k", 60)
    assert limits.admit("k", 30).remaining_tokens == 50


def test_keys_and_workers_share_one_count_each(tmp_path: Path, clock: list[float]) -> None:
    """Two workers open the same file; another key is not concerned."""
    first, second = Limits(tmp_path / "limits.db", 2, 1000), Limits(tmp_path / "limits.db", 2, 1000)
    first.admit("k", 1)
    second.admit("k", 1)
    with pytest.raises(RateLimited):
        first.admit("k", 1)
    assert first.admit("other", 1).remaining_requests == 1
