"""Facts of a registered adapter: what is stored of its package, once, when it is staged."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.canonical import parse_canonical
from adapters.composition import UNIT_PPM
from adapters.datanet import DatanetStore
from adapters.declared import default_declared
from adapters.document import Document
from adapters.errors import BadTrainingRecord, HeadMismatch, InvalidDeclared, VersionNotFound
from adapters.layout import COMPOSITION, MANIFEST, RECORD
from adapters.package import Package

OF_HEAD = ("head", "method", "fidelity_ppm", "datanet", "datanet_version", "contributors")


def facts_of(
    datanets: DatanetStore, package: Package, declared: Mapping[str, int] | None, publisher: str
) -> dict[str, Any]:
    """The members of a RegisteredAdapter that follow from its package, as canonical JSON values.

    Raises VersionNotFound when the package names a Datanet version that is not here, BadTrainingRecord and HeadMismatch
    when it names a contributor without an example in that version.
    """
    datanet, held = _version_of(datanets, package)
    for name in package.tokens:
        if name not in held:
            raise BadTrainingRecord(f"the training record names {name}, who has no example in the Datanet version")
    for name in package.contributors:
        if name not in held:
            raise HeadMismatch(f"the head has a row for {name}, who has no example in the Datanet version")
    return {
        "base": package.base,
        "rank": package.rank,
        "head": package.head,
        "method": package.method,
        "fidelity_ppm": package.fidelity_ppm,
        "datanet": datanet,
        "datanet_version": package.datanet_version,
        "trainer": package.trainer,
        "host": package.host,
        "contributors": package.contributors,
        "declared": declared or default_declared(package, held, publisher),
    }


def composed_facts(
    package: Package, declared: Mapping[str, int] | None, parts: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """The facts of a composed adapter, from the declared weights of its `parts` by digest.

    Each part's declared weights count as a whole by the part's own weight. Raises InvalidDeclared when the publisher
    declares others.
    """
    assert package.composition is not None
    if declared is not None:
        raise InvalidDeclared("the declared weights of a composed adapter are those of its parts")
    total: Counter[str] = Counter()
    for adapter, weight_ppm in package.composition.parts.items():
        own = parts[adapter]
        for name, weight in own.items():
            total[name] += weight_ppm * UNIT_PPM * weight // sum(own.values())
    return {
        "base": package.base,
        "rank": package.rank,
        "head": package.head,
        "method": package.method,
        "fidelity_ppm": package.fidelity_ppm,
        "datanet": None,
        "datanet_version": None,
        "trainer": None,
        "host": None,
        "contributors": package.contributors,
        "declared": {name: total[name] for name in sorted(total)},
        "composed_of": dict(package.composition.parts),
    }


def package_documents(directory: Path, digest: str, facts: Mapping[str, Any]) -> list[Document]:
    """What the log is to hold of an installed package: its manifest, training record, head and composition."""
    documents = [Document("adapter", digest, (directory / MANIFEST).read_bytes())]
    if (directory / RECORD).exists():
        documents.append(Document.of(parse_canonical((directory / RECORD).read_bytes())))
    if facts["head"] is not None:
        documents.append(Document.of({"type": "head", "adapter": digest, **{key: facts[key] for key in OF_HEAD}}))
    if (directory / COMPOSITION).exists():
        documents.append(Document.of(parse_canonical((directory / COMPOSITION).read_bytes())))
    return documents


def _version_of(datanets: DatanetStore, package: Package) -> tuple[str | None, dict[str, int]]:
    """The package's Datanet, and the bytes that each contributor has in its version."""
    if package.datanet_version is None:
        return None, {}
    document = datanets.find_version(package.datanet_version)
    if document is None or package.datanet not in (None, document["datanet"]):
        place = f"{package.datanet} has no" if package.datanet else "no Datanet here has the"
        raise VersionNotFound(f"{place} version {package.datanet_version}")
    return document["datanet"], {name: count["bytes"] for name, count in document["contributors"].items()}
