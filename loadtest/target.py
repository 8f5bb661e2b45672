"""What is loaded: a URL and a key, from options, the environment, or the files of a data directory on this machine."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from loadtest.errors import Usage


@dataclass(frozen=True)
class Target:
    """`url` ends with /v1. With an `operator_key` the run gets an account of its own and can ask for the check.

    `data` is the data directory, where it is on this machine: then the journal's files are read, too.
    """

    url: str
    key: str | None
    operator_key: str | None = None
    data: Path | None = None

    @property
    def root(self) -> str:
        """The URL without /v1."""
        return self.url.removesuffix("/v1")


def find_target(url: str | None, key: str | None, operator_key: str | None, data: Path | None) -> Target:
    """Options win, then OPENAI_BASE_URL and OPENAI_API_KEY, then $DATA/demo.env; the operator's key from its file.

    Another server's URL is never mixed with the keys of this machine's data directory. Raises Usage without a URL, or
    without any key.
    """
    url = url or os.environ.get("OPENLEDGER_URL") or os.environ.get("OPENAI_BASE_URL")
    key = key or os.environ.get("OPENAI_API_KEY")
    data = data or Path(os.environ.get("DATA") or "data")
    local = _demo(data)
    url = _normal(url or local.get("OPENAI_BASE_URL") or "")
    if local and url == _normal(local["OPENAI_BASE_URL"]):
        key = key or local.get("OPENAI_API_KEY")
        operator_key = operator_key or _read(data / "operator.key")
    else:
        data = None
    if not url:
        raise Usage("no server: give --url, set OPENAI_BASE_URL, or start `openledger serve` here")
    if not key and not operator_key:
        raise Usage("no key: give --key or set OPENAI_API_KEY")
    return Target(url, key, operator_key, data)


def _normal(url: str) -> str:
    url = url.rstrip("/")
    return url if not url or url.endswith("/v1") else f"{url}/v1"


def _demo(data: Path) -> dict[str, str]:
    """The variables of demo.env; empty without the file."""
    pairs = (line.partition("=") for line in (_read(data / "demo.env") or "").splitlines())
    return {name: (shlex.split(value) or [""])[0] for name, _, value in pairs}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
