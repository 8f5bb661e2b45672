"""Digests: `sha256:` and 64 lower-case hex digits of specified bytes (docs/ARCHITECTURE.md, "Names and digests")."""

import hashlib
import re
from pathlib import Path

from adapters.errors import InvalidDocument

PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest(content: bytes) -> str:
    """The digest of `content`."""
    return PREFIX + hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """The digest of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def is_digest(text: object) -> bool:
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def hex_of(name: str) -> str:
    """The 64 hex digits of a digest: an adapter's directory name and its model name inside the engine.

    Raises InvalidDocument when `name` is not a digest.
    """
    if not is_digest(name):
        raise InvalidDocument(f"not a digest: {name!r}")
    return name.removeprefix(PREFIX)
