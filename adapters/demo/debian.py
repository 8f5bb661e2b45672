"""Files of Debian packages, by package name: installed ones are read in place, others are fetched and unpacked."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path


class PackagesUnreachable(OSError):
    """A Debian package is neither installed nor can it be fetched here."""


def package_file(package: str, path: str, cache_dir: Path) -> Path:
    """The file `path` (as in `usr/share/dictd/devil.dict.dz`) of a package.

    Looks at the running system, then at `cache_dir`, then runs `apt-get download` and `dpkg-deb -x` into `cache_dir`;
    neither needs root. Raises PackagesUnreachable.
    """
    for found in (Path("/") / path, cache_dir / package / path):
        if found.is_file():
            return found
    _fetch(package, cache_dir)
    if not (cache_dir / package / path).is_file():
        raise PackagesUnreachable(f"Debian's package {package} holds no {path}")
    return cache_dir / package / path


def _fetch(package: str, cache_dir: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PackagesUnreachable(f"{package}: this system has no apt-get and dpkg-deb")
    cache_dir = cache_dir.resolve()  # the commands run in a directory of their own
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as work:
        _run(["apt-get", "-q", "download", package], work, package)
        archives = sorted(Path(work).glob("*.deb"))
        if not archives:
            raise PackagesUnreachable(f"{package}: apt-get downloaded nothing")
        unpacked = Path(work) / "unpacked"
        _run(["dpkg-deb", "-x", str(archives[0]), str(unpacked)], work, package)
        unpacked.replace(cache_dir / package)


def _run(command: list[str], directory: str, package: str) -> None:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise PackagesUnreachable(f"{package}: {command[0]} took more than 300 s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise PackagesUnreachable(f"{package}: {command[0]} failed: {' '.join(last)}")
