"""Exports: a Datanet version as files that anyone can check and train on. See docs/formats/datanet-version.md.

version.json            the version document, canonical bytes
datanet.json            the Datanet document
policy.json             the policy document
contributions.jsonl     the contribution documents, one a line, in the order of their sequence numbers
examples.jsonl          {"contribution","contributor","example","licence","value"}, one a line, in canonical order
"""

from pathlib import Path
from typing import BinaryIO

from adapters.datanet import DatanetStore
from adapters.version import DatanetVersion


def export_directory(store: DatanetStore, datanet: str, directory: Path, version: str | None = None) -> str:
    """Write a version (the latest by default) into `directory`, which must not exist; returns the version digest."""
    raise NotImplementedError


def export_tar(store: DatanetStore, datanet: str, out: BinaryIO, version: str | None = None) -> str:
    """Write the same files as an uncompressed tar, byte for byte the same for the same version; returns the digest."""
    raise NotImplementedError


def load_export(path: Path) -> DatanetVersion:
    """Read an export (directory or tar), check it as `verify_export` does, and return the version with its examples."""
    raise NotImplementedError


def verify_export(path: Path) -> str:
    """Recompute every digest of an export from its content alone and return the version digest.

    Raises ExportMismatch, naming the file and line, when anything disagrees.
    """
    raise NotImplementedError
