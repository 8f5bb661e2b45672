"""Where packages lie: `adapters/<hex>`, complete or not there at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adapters.archive import copy_files, sync_directory
from adapters.base import BaseModel
from adapters.digests import PREFIX, hex_of, is_digest
from adapters.layout import MANIFEST, PackageLimits
from adapters.package import Package, inspect, manifest_bytes, unpack

WORK = ".staging"


class Installation:
    """The directory of packages. Work in progress lies under `.staging`, in the same file system, until renamed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / WORK).mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        return self.directory / hex_of(digest)

    def digests(self) -> Iterator[str]:
        """The digests that directories are named by."""
        for path in self.directory.iterdir():
            if is_digest(PREFIX + path.name):
                yield PREFIX + path.name

    @contextmanager
    def work(self) -> Iterator[Path]:
        """An empty directory in the file system of the packages; what is left in it at the end is deleted."""
        building = self.directory / WORK / uuid.uuid4().hex
        building.mkdir()
        try:
            yield building
        finally:
            shutil.rmtree(building, ignore_errors=True)

    @contextmanager
    def prepare(self, source: Path | BinaryIO, base: BaseModel, limits: PackageLimits) -> Iterator[Package]:
        """A validated copy of a package, on disk with its manifest and synced; gone at the end unless installed.

        Raises what `unpack` and `inspect` raise.
        """
        with self.work() as building:
            if isinstance(source, Path):
                copy_files(source, building, limits)
            else:
                unpack(source, building, limits)
            package = inspect(building, base, limits)
            self.seal(package)
            yield package

    def seal(self, package: Package) -> None:
        """Writes the manifest beside the files of a package and syncs them: it can be installed."""
        (package.directory / MANIFEST).write_bytes(package.manifest)
        sync_directory(package.directory)

    def is_intact(self, package: Package) -> bool:
        """True if the same package is installed and its bytes still have the digests of its manifest."""
        target = self.path(package.digest)
        return target.is_dir() and manifest_bytes(target, package.base) == package.manifest

    def install(self, package: Package, intact: bool) -> None:
        """Rename a prepared package into place; a damaged one there makes way, an intact one stays."""
        target = self.path(package.digest)
        if target.exists():
            if intact:
                return
            self.remove(package.digest)
        os.rename(package.directory, target)
        _sync(self.directory)

    def remove(self, digest: str) -> None:
        """Take a package out in one step, then delete its files."""
        doomed = self.directory / WORK / uuid.uuid4().hex
        try:
            os.rename(self.path(digest), doomed)
        except FileNotFoundError:
            return
        _sync(self.directory)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self, before_ms: int) -> int:
        """Delete work in progress that was last touched before a time; returns how many directories."""
        swept = 0
        for path in (self.directory / WORK).iterdir():
            if path.stat().st_mtime_ns // 1_000_000 <= before_ms:
                shutil.rmtree(path, ignore_errors=True)
                swept += 1
        return swept


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
