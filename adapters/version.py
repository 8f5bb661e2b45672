"""A Datanet version: an immutable set of examples, named by a Merkle root. See docs/formats/datanet-version.md."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import PREFIX
from adapters.errors import EmptyDatanet
from adapters.example import Example
from adapters.merkle import merkle_root
from adapters.near_duplicates import CHECK, fingerprint, jaccard, near_duplicates


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
    `set_aside` are near duplicates that are not in the version, in the same order; `near_duplicate_of` maps their
    digests to those of the examples that they repeat.
    """

    datanet: str
    digest: str
    examples: tuple[VersionExample, ...]
    split_ppm: Mapping[str, int]
    document: bytes
    set_aside: tuple[VersionExample, ...] = ()
    near_duplicate_of: Mapping[str, str] = field(default_factory=dict)

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
    """What a version may be made of; `content` is the example's canonical JSON."""

    contributor: str
    example: str
    licence: str
    contribution: str
    content: bytes


def contributions_of(accepted: Sequence[AcceptedExample]) -> list[str]:
    """Digests of the contributions, in their order, of examples ordered by contribution."""
    return list(dict.fromkeys(item.contribution for item in accepted))


def repeated(accepted: Sequence[AcceptedExample]) -> dict[str, str]:
    """Digest of each near duplicate, and that of the example it repeats, of examples ordered by contribution.

    Examples of one contribution are taken by digest, whatever their lines were: an export does not know lines.
    """
    place = {digest: number for number, digest in enumerate(contributions_of(accepted))}
    ordered = sorted(accepted, key=lambda item: (place[item.contribution], item.example))
    found = near_duplicates([fingerprint(Example.decode(item.content)) for item in ordered])
    return {ordered[number].example: ordered[other].example for number, other in found.items()}


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """An example and the earlier one that it repeats. `jaccard_ppm` is their similarity, in parts per million."""

    example: str
    contributor: str
    contribution: str
    near_duplicate_of: str
    earlier_contributor: str
    earlier_contribution: str
    jaccard_ppm: int


def compared(item: AcceptedExample, earlier: AcceptedExample) -> NearDuplicate:
    """How two examples are near duplicates."""
    of_both = jaccard(*(fingerprint(Example.decode(one.content)) for one in (item, earlier)))
    return NearDuplicate(
        example=item.example,
        contributor=item.contributor,
        contribution=item.contribution,
        near_duplicate_of=earlier.example,
        earlier_contributor=earlier.contributor,
        earlier_contribution=earlier.contribution,
        jaccard_ppm=int(of_both * 1_000_000),
    )


def version_facts(
    datanet: str, accepted: Sequence[AcceptedExample], near_duplicate_of: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The members of a version document that follow from its examples, which are ordered by contribution.

    `near_duplicate_of` is `repeated(accepted)`, or None for a Datanet that accepts near duplicates. Raises EmptyDatanet
    when there is no example.
    """
    if not accepted:
        raise EmptyDatanet(f"{datanet} holds no accepted example")
    aside = near_duplicate_of or {}
    kept = [item for item in accepted if item.example not in aside]
    counts: dict[str, dict[str, int]] = {}
    for item in kept:
        count = counts.setdefault(item.contributor, {"examples": 0, "bytes": 0})
        count["examples"] += 1
        count["bytes"] += len(item.content)
    facts = {
        "datanet": datanet,
        "version": version_digest(datanet, ((item.contributor, item.example, item.licence) for item in kept)),
        "examples": len(kept),
        "contributors": counts,
        "licences": sorted({item.licence for item in kept}),
        "contributions": contributions_of(accepted),
    }
    if near_duplicate_of is not None:
        facts["near_duplicates"] = _near_duplicate_facts(datanet, accepted, aside)
    return facts


def _near_duplicate_facts(
    datanet: str, accepted: Sequence[AcceptedExample], near_duplicate_of: Mapping[str, str]
) -> dict[str, Any]:
    """Which check was made, how many examples of whom it set aside, and the Merkle root of which and for which."""
    aside = sorted(
        (item.contributor, item.example, item.licence) for item in accepted if item.example in near_duplicate_of
    )
    leaves = (
        set_aside_leaf(datanet, contributor, example, licence, near_duplicate_of[example])
        for contributor, example, licence in aside
    )
    counts = Counter(contributor for contributor, _, _ in aside)
    return {"check": CHECK, "contributors": dict(counts), "root": PREFIX + merkle_root(leaves).hex()}


def set_aside_leaf(datanet: str, contributor: str, example: str, licence: str, near_duplicate_of: str) -> bytes:
    """The Merkle leaf of one example that was set aside: `leaf` with the reason."""
    members = {"contributor": contributor, "datanet": datanet, "example": example, "licence": licence}
    return canonical_json({**members, "near_duplicate_of": near_duplicate_of})
