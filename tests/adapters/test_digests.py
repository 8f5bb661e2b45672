"""Digests are `sha256:` and 64 lower-case hex digits."""

import pytest

from adapters.digests import digest, file_digest, hex_of, is_digest
from adapters.errors import InvalidDocument

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_bytes_and_files(tmp_path):
    """A file's digest is that of its bytes, and the digest of nothing is the published one."""
    assert digest(b"") == EMPTY
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    assert file_digest(tmp_path / "file") == digest(b"x" * 1_000_000)


def test_hex():
    """The hex digits of a digest name directories; what is no digest names nothing."""
    assert hex_of(EMPTY) == EMPTY[7:]
    for text in ("", EMPTY[7:], EMPTY.upper(), EMPTY + "0", EMPTY[:-1], EMPTY + "\n", "sha256:../" + EMPTY[10:]):
        assert not is_digest(text)
        with pytest.raises(InvalidDocument):
            hex_of(text)
