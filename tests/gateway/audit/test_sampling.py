"""Which requests are sampled: a share of all, which nobody can know without the key."""

import stat
from pathlib import Path

from gateway.audit.sampling import Sampler, load_or_create_key

IDS = [f"req_{index:032x}" for index in range(20_000)]


def test_about_the_share_is_taken_and_always_the_same() -> None:
    """1% of 20,000 requests within five standard deviations; a second look takes the same ones."""
    sampler = Sampler(b"k" * 32, 10_000)
    taken = [request_id for request_id in IDS if sampler.takes(request_id)]
    assert abs(len(taken) - 200) < 5 * (200 * 0.99) ** 0.5
    assert taken == [request_id for request_id in IDS if sampler.takes(request_id)]


def test_none_and_all() -> None:
    """A share of 0 takes nothing, a share of 1 everything."""
    assert not any(map(Sampler(b"k" * 32, 0).takes, IDS[:1000]))
    assert all(map(Sampler(b"k" * 32, 1_000_000).takes, IDS[:1000]))


def test_another_key_takes_other_requests() -> None:
    """Two keys agree no more often than chance has it: 1% of 1%."""
    one, other = (Sampler(key * 32, 10_000) for key in (b"k", b"l"))
    assert sum(one.takes(request_id) and other.takes(request_id) for request_id in IDS) < 12


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    """32 random bytes in a file of mode 600, read back by later starts."""
    path = tmp_path / "audit.key"
    key = load_or_create_key(path)
    assert (len(key), load_or_create_key(path)) == (32, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(tmp_path / "other.key") != key
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["audit.key", "other.key"]
