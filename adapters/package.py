"""Adapter packages: what `openledger adapter register` uploads, checked without torch and without pickle.

adapter_config.json           PEFT
adapter_model.safetensors     PEFT
attribution_head.safetensors  optional; docs/formats/head.md
training_record.json          optional; canonical JSON
fidelity.json                 optional; canonical JSON, named in the head's metadata
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapters.base import BaseModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
HEAD = "attribution_head.safetensors"
RECORD = "training_record.json"
FIDELITY = "fidelity.json"
FILES = (CONFIG, WEIGHTS, HEAD, RECORD, FIDELITY)


@dataclass(frozen=True)
class PackageLimits:
    """Upper bounds: bytes of the whole package and of each JSON file; rank r of an adapter."""

    package_bytes: int = 2 << 30
    json_bytes: int = 1 << 20
    max_rank: int = 64


@dataclass(frozen=True)
class Package:
    """A validated package. `manifest` is canonical; `digest`, the adapter's name everywhere, is its digest.

    `head`, `datanet`, `datanet_version`, `trainer`, `host` are None when the package does not carry them;
    `tokens` are training tokens per contributor from the training record.
    """

    directory: Path
    digest: str
    manifest: bytes
    base: str
    rank: int
    alpha_ppm: int
    target_modules: tuple[str, ...]
    weights: str
    head: str | None
    taps: tuple[str, ...]
    contributors: tuple[str, ...]
    method: str
    fidelity_ppm: int
    datanet: str | None
    datanet_version: str | None
    trainer: str | None
    host: str | None
    tokens: Mapping[str, int]


def manifest_bytes(directory: Path, base_digest: str) -> bytes:
    """The canonical manifest of the package files in `directory`; its digest is the adapter digest.

        {"base": digest, "files": {name: {"sha256": digest, "size": bytes}}, "type": "adapter"}

    Raises FileMissing when the config or the weights are not there. Does not validate: see `inspect`.
    """
    raise NotImplementedError


def pack(directory: Path, out: BinaryIO) -> list[str]:
    """Write the package files of `directory` as an uncompressed tar; returns the names it left out (README.md and such).

    The same files give the same bytes. Raises FileMissing, PickleFile (also for a pickle beside the weights), UnsafePath
    for links.
    """
    raise NotImplementedError


def unpack(stream: BinaryIO, directory: Path, limits: PackageLimits) -> None:
    """Write the files of a package tar into an empty `directory`, refusing while streaming what no package holds.

    Raises BadArchive, UnsafePath, PickleFile, FileNotAllowed, PackageTooLarge.
    """
    raise NotImplementedError


def inspect(directory: Path, base: BaseModel, limits: PackageLimits) -> Package:
    """Validate a package directory against the served base. Raises the named subclass of InvalidPackage."""
    raise NotImplementedError
