"""Adapter packages: what `openledger adapter register` uploads, checked without torch and without pickle.

adapter_config.json           PEFT
adapter_model.safetensors     PEFT
attribution_head.safetensors  optional; docs/formats/head.md
training_record.json          optional; canonical JSON
fidelity.json                 optional; canonical JSON, named in the head's metadata
composition.json              of composed adapters; docs/formats/composition.md

See docs/formats/adapter-package.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from adapters.archive import check_name, read_archive, write_archive
from adapters.base import BaseModel
from adapters.canonical import canonical_json, parse_canonical
from adapters.composition import Composition, parse_composition
from adapters.digests import digest, file_digest
from adapters.errors import (
    BadAdapterConfig,
    BadComposition,
    BadFidelity,
    BadTrainingRecord,
    FileMissing,
    HeadMismatch,
    PackageTooLarge,
    UnsafePath,
    WrongBase,
)
from adapters.head import Head, check_head
from adapters.layout import (
    COMPOSITION,
    CONFIG,
    FIDELITY,
    FILES,
    HEAD,
    JSON_FILES,
    MANIFEST,
    RECORD,
    WEIGHTS,
    PackageLimits,
)
from adapters.peft_config import PeftConfig
from adapters.record import TrainingRecord, parse_fidelity, parse_record
from adapters.strict_json import parse_json
from adapters.tensors import read_header
from adapters.weights import check_weights

__all__ = [
    "COMPOSITION", "CONFIG", "FIDELITY", "FILES", "HEAD", "RECORD", "WEIGHTS",
    "Package", "PackageLimits", "inspect", "manifest_bytes", "pack", "unpack",
]  # fmt: skip

DECLARED = "declared"
"""The method of an adapter without head (ATTRIBUTION.md section 4)."""


@dataclass(frozen=True)
class Package:
    """A validated package. `manifest` is canonical; `digest`, the adapter's name everywhere, is its digest.

    `head`, `datanet`, `datanet_version`, `trainer`, `host` are None when the package does not carry them.
    `contributors` are the head's rows; `tokens` are training tokens per contributor of the training record. A head
    without a training record names its Datanet by the version's digest alone: `datanet` is None then. A composed
    adapter has a `composition` instead of a record, and the Datanets of its parts.
    """

    directory: Path
    digest: str
    manifest: bytes
    base: str
    rank: int
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
    composition: Composition | None = None


def manifest_bytes(directory: Path, base_digest: str) -> bytes:
    """The canonical manifest of the package files in `directory`; its digest is the adapter digest.

        {"base": digest, "files": {name: {"digest": digest, "size": bytes}}, "type": "adapter"}

    Raises FileMissing when the config or the weights are not there. Does not validate: see `inspect`.
    """
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise FileMissing(f"the package lacks {name}")
    files = {
        name: {"digest": file_digest(directory / name), "size": (directory / name).stat().st_size}
        for name in FILES
        if (directory / name).is_file()
    }
    return canonical_json({"base": base_digest, "files": files, "type": "adapter"})


def pack(directory: Path, out: BinaryIO) -> list[str]:
    """Write the package files of `directory` as an uncompressed tar, the same bytes for the same files.

    Returns the names it left out, such as the README.md that PEFT writes. Raises FileMissing, PickleFile (also for a
    pickle beside the weights) and UnsafePath for links.
    """
    return write_archive(directory, out)


def unpack(stream: BinaryIO, directory: Path, limits: PackageLimits) -> None:
    """Write the files of a package tar into an empty `directory`, refusing while streaming what no package holds.

    Raises BadArchive, UnsafePath, PickleFile, FileNotAllowed, PackageTooLarge.
    """
    read_archive(stream, directory, limits)


def inspect(directory: Path, base: BaseModel, limits: PackageLimits) -> Package:
    """Validate a package directory against the served base. Raises the named subclass of InvalidPackage.

    Order of precedence: files and sizes, config, tensors, composition, training record, fidelity report, head.
    """
    _check_files(directory, limits)
    config = PeftConfig.of(_read_json(directory / CONFIG), limits.max_rank)
    ranks = check_weights(read_header(directory / WEIGHTS), config, base)
    manifest = manifest_bytes(directory, base.digest)
    files = parse_canonical(manifest)["files"]
    weights = files[WEIGHTS]["digest"]
    composition = _composition(directory, weights, base)
    record = _record(directory, weights, base)
    head = _head(directory, files, ranks, base)
    if head and record and head.datanet_version != record.datanet_version:
        raise HeadMismatch("the head was fitted for another Datanet version than the training record names")
    if head and composition and head.datanet_version != files[COMPOSITION]["digest"]:
        raise HeadMismatch("the head of a composed adapter must name its composition as its Datanet version")
    version = record.datanet_version if record else head.datanet_version if head and not composition else None
    return Package(
        directory=directory,
        digest=digest(manifest),
        manifest=manifest,
        base=base.digest,
        rank=max(ranks.values()),
        target_modules=tuple(ranks),
        weights=weights,
        head=files[HEAD]["digest"] if head else None,
        taps=head.taps if head else (),
        contributors=head.contributors if head else (),
        method=head.method if head else DECLARED,
        fidelity_ppm=parse_fidelity((directory / FIDELITY).read_bytes()) if head else 0,
        datanet=record.datanet if record else None,
        datanet_version=version,
        trainer=record.trainer if record else None,
        host=record.host if record else None,
        tokens=record.tokens if record else {},
        composition=composition,
    )


def _check_files(directory: Path, limits: PackageLimits) -> None:
    total = 0
    for path in sorted(directory.iterdir()):
        if path.name == MANIFEST:
            continue
        check_name(path.name)
        if path.is_symlink() or not path.is_file():
            raise UnsafePath(f"{path.name} is a link, a directory or a device")
        size = path.stat().st_size
        if path.name in JSON_FILES and size > limits.json_bytes:
            raise PackageTooLarge(f"{path.name} has {size} bytes; at most {limits.json_bytes} are taken")
        total += size
    if total > limits.package_bytes:
        raise PackageTooLarge(f"a package holds at most {limits.package_bytes} bytes, this one has {total}")
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).exists():
            raise FileMissing(f"the package lacks {name}")


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise BadAdapterConfig(f"{path.name}: {error}") from None


def _composition(directory: Path, weights: str, base: BaseModel) -> Composition | None:
    if not (directory / COMPOSITION).exists():
        return None
    composition = parse_composition((directory / COMPOSITION).read_bytes())
    if composition.base != base.digest:
        raise WrongBase(f"the composition is over the base model {composition.base}; {base.digest} is served")
    if composition.weights != weights:
        raise BadComposition(f"the composition is of weights {composition.weights}; the package holds {weights}")
    if (directory / RECORD).exists():
        raise BadComposition(f"a composed adapter was not trained: it holds no {RECORD}")
    return composition


def _record(directory: Path, weights: str, base: BaseModel) -> TrainingRecord | None:
    if not (directory / RECORD).exists():
        return None
    record = parse_record((directory / RECORD).read_bytes())
    if record.base != base.digest:
        raise WrongBase(f"the training record names the base model {record.base}; {base.digest} is served")
    if record.weights != weights:
        raise BadTrainingRecord(
            f"the training record is of adapter weights {record.weights}; the package holds {weights}"
        )
    return record


def _head(
    directory: Path, files: Mapping[str, Mapping[str, Any]], ranks: Mapping[str, int], base: BaseModel
) -> Head | None:
    if HEAD not in files:
        if FIDELITY in files:
            raise BadFidelity(f"{FIDELITY} reports on a head, but the package holds no {HEAD}")
        return None
    head = check_head(read_header(directory / HEAD), ranks, files[WEIGHTS]["digest"], base)
    if FIDELITY not in files:
        raise FileMissing(f"the head names a fidelity report, but the package lacks {FIDELITY}")
    if files[FIDELITY]["digest"] != head.fidelity:
        raise HeadMismatch(f"the head names the fidelity report {head.fidelity}; {FIDELITY} is another")
    return head
