"""A Datanet version: an immutable set of examples, named by a Merkle root. See docs/formats/datanet-version.md."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from adapters.canonical import canonical_json
from adapters.digests import PREFIX
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
