"""A Datanet version: an immutable set of examples, named by a Merkle root. See docs/formats/datanet-version.md."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import PREFIX
from adapters.errors import EmptyDatanet
from adapters.example import Example
from adapters.merkle import merkle_root


@dataclass(frozen=True, slots=True)
class VersionExample:
    """One example of a version, with the contributor who owns it."""

    digest: str
    contributor: str
    licence: str
    contribution: str
    example: Example


@dataclass(frozen=True)
class DatanetVersion:
    """`examples` are in canonical order: by contributor, then by example digest. `digest` is their Merkle root.

    `document` holds the canonical bytes of the version document, `split_ppm` the policy in force when it was made.
    """

    datanet: str
    digest: str
    examples: tuple[VersionExample, ...]
    split_ppm: Mapping[str, int]
    document: bytes

    def value(self) -> dict[str, Any]:
        """The members of the version document."""
        return parse_canonical(self.document)

    @cached_property
    def contributors(self) -> tuple[str, ...]:
        """Sorted and unique: the order of a head's rows."""
        return tuple(sorted({example.contributor for example in self.examples}))

    @cached_property
    def licences(self) -> tuple[str, ...]:
        return tuple(sorted({example.licence for example in self.examples}))


def leaf(datanet: str, contributor: str, example: str, licence: str) -> bytes:
    """The Merkle leaf of one example: canonical JSON of these four members."""
    return canonical_json({"contributor": contributor, "datanet": datanet, "example": example, "licence": licence})


def version_digest(datanet: str, examples: Iterable[tuple[str, str, str]]) -> str:
    """The digest of (contributor, example digest, licence) triples, in any order."""
    leaves = (leaf(datanet, contributor, example, licence) for contributor, example, licence in sorted(examples))
    return PREFIX + merkle_root(leaves).hex()


@dataclass(frozen=True, slots=True)
class AcceptedExample:
    """What a version is made of; `size` in bytes of canonical JSON."""

    contributor: str
    example: str
    licence: str
    contribution: str
    size: int


def version_facts(datanet: str, accepted: Sequence[AcceptedExample]) -> dict[str, Any]:
    """The members of a version document that follow from its examples, which are ordered by contribution.

    Raises EmptyDatanet when there are none.
    """
    if not accepted:
        raise EmptyDatanet(f"{datanet} holds no accepted example")
    counts: dict[str, dict[str, int]] = {}
    for item in accepted:
        count = counts.setdefault(item.contributor, {"examples": 0, "bytes": 0})
        count["examples"] += 1
        count["bytes"] += item.size
    return {
        "datanet": datanet,
        "version": version_digest(datanet, ((item.contributor, item.example, item.licence) for item in accepted)),
        "examples": len(accepted),
        "contributors": counts,
        "licences": sorted({item.licence for item in accepted}),
        "contributions": list(dict.fromkeys(item.contribution for item in accepted)),
    }
