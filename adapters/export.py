"""Exports: a Datanet version as files that anyone can check and train on. See docs/formats/datanet-version.md.

version.json            the version document, canonical bytes
datanet.json            the Datanet document
policy.json             the policy document
contributions.jsonl     the contribution documents, one a line, in the order of their sequence numbers
examples.jsonl          {"contribution","contributor","example","licence","value"}, one a line, in canonical order
near_duplicates.jsonl   the same and "near_duplicate_of", of examples that were set aside; only of Datanets that do so
"""

import os
import tarfile
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from adapters.canonical import canonical_json
from adapters.datanet import DatanetStore
from adapters.errors import ExportMismatch
from adapters.verify import FILES, SET_ASIDE_FILE, check_export
from adapters.version import DatanetVersion, VersionExample


def export_directory(store: DatanetStore, datanet: str, directory: Path, version: str | None = None) -> str:
    """Write a version (the latest by default) into `directory`, which must not exist; returns the version digest.

    Written beside it and renamed: a crash leaves no half export. Raises DatanetNotFound, VersionNotFound, OSError.
    """
    exported = store.load(datanet, version)
    if directory.exists():
        raise FileExistsError(f"{directory} exists")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as building:
        target = Path(building) / "export"
        target.mkdir(mode=0o755)
        for name, content in _files(store, exported).items():
            (target / name).write_bytes(content)
        os.rename(target, directory)
    return exported.digest


def export_tar(store: DatanetStore, datanet: str, out: BinaryIO, version: str | None = None) -> str:
    """Write the same files as an uncompressed tar, byte for byte the same for the same version; returns the digest."""
    exported = store.load(datanet, version)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in _files(store, exported).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return exported.digest


def load_export(path: Path) -> DatanetVersion:
    """Read an export (directory or tar), check it as `verify_export` does, and return the version with its examples.

    Raises ExportMismatch, and FileNotFoundError when there is nothing at `path`.
    """
    return check_export(_read_directory(path) if path.is_dir() else _read_tar(path))


def verify_export(path: Path) -> str:
    """Recompute every digest of an export from its content alone and return the version digest.

    Raises ExportMismatch, naming the file and line, when anything disagrees.
    """
    return load_export(path).digest


def _files(store: DatanetStore, version: DatanetVersion) -> Mapping[str, bytes]:
    value = version.value()
    contributions = [store.document(digest).content for digest in value["contributions"]]
    files = {
        "version.json": version.document,
        "datanet.json": store.document(value["datanet_document"]).content,
        "policy.json": store.document(value["policy"]).content,
        "contributions.jsonl": b"".join(line + b"\n" for line in contributions),
        "examples.jsonl": b"".join(_line(item) for item in version.examples),
    }
    if "near_duplicates" in value:
        repeats = (_line(item, near_duplicate_of=version.near_duplicate_of[item.digest]) for item in version.set_aside)
        files[SET_ASIDE_FILE] = b"".join(repeats)
    return files


def _line(item: VersionExample, **reason: str) -> bytes:
    members = {
        "contribution": item.contribution,
        "contributor": item.contributor,
        "example": item.digest,
        "licence": item.licence,
        "value": item.example.value(),
    }
    return canonical_json({**members, **reason}) + b"\n"


def _read_directory(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in (*FILES, SET_ASIDE_FILE) if (path / name).is_file()}


def _read_tar(path: Path) -> dict[str, bytes]:
    """The files of an export's tar; others are left unread, and nothing is extracted to disk."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path, mode="r:") as archive:
            for entry in archive:
                wanted = entry.isreg() and entry.name in (*FILES, SET_ASIDE_FILE)
                content = archive.extractfile(entry) if wanted else None
                if content is not None:
                    files[entry.name] = content.read()
    except tarfile.TarError as error:
        raise ExportMismatch(f"{path.name}: not an uncompressed tar: {error}") from None
    return files
