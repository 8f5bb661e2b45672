"""Contributions: what one contributor gives to one Datanet in one act. See docs/formats/contribution.md."""

from dataclasses import dataclass

import apsw

from adapters.document import Document
from adapters.errors import DuplicateExample, InvalidExample
from adapters.example import Example, ExampleLimits, parse_examples
from adapters.version import version_digest


@dataclass(frozen=True, slots=True)
class Contribution:
    """`digest` is that of the contribution document; `sequence` counts 1, 2, ... within the Datanet."""

    digest: str
    datanet: str
    sequence: int
    contributor: str
    submitted_by: str
    licence: str
    examples: int
    created_ms: int
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """What somebody wants accepted: `examples` are (line, example) pairs, without repeats; `root` is theirs."""

    datanet: str
    contributor: str
    submitted_by: str
    licence: str
    examples: tuple[tuple[int, Example], ...]
    root: str


def make_offer(
    datanet: str, contributor: str, submitted_by: str, licence: str, jsonl: bytes, limits: ExampleLimits
) -> Offer:
    """The offer of an upload: all the work that needs no look into the store.

    Raises InvalidExample, ContributionTooLarge, and DuplicateExample for two equal lines.
    """
    lines: dict[str, int] = {}
    pairs = []
    for line, example in parse_examples(jsonl, limits):
        if example.digest in lines:
            earlier = lines[example.digest]
            message = f"line {line}: the same example as line {earlier} of this upload"
            raise DuplicateExample(message, line=line, contributor=None, contribution=None)
        lines[example.digest] = line
        pairs.append((line, example))
    if not pairs:
        raise InvalidExample("the upload holds no example", line=1)
    root = version_digest(datanet, ((contributor, example, licence) for example in lines))
    return Offer(datanet, contributor, submitted_by, licence, tuple(pairs), root)


def accept(connection: apsw.Connection, offer: Offer, now_ms: int) -> Document:
    """Keep an offer's examples within the caller's transaction; returns the contribution document, not yet recorded.

    Raises DuplicateExample when the Datanet holds one of them, or held it from another contributor.
    """
    for line, example in offer.examples:
        _refuse_duplicate(connection, offer, line, example)
    sequence = connection.execute(
        "SELECT coalesce(max(sequence), 0) + 1 FROM contributions WHERE datanet = ?", (offer.datanet,)
    ).get
    return Document.of(
        {
            "type": "contribution",
            "datanet": offer.datanet,
            "sequence": sequence,
            "contributor": offer.contributor,
            "submitted_by": offer.submitted_by,
            "licence": offer.licence,
            "examples": len(offer.examples),
            "root": offer.root,
            "created_ms": now_ms,
        }
    )


def insert(connection: apsw.Connection, document: Document, offer: Offer) -> None:
    """Write the rows of an accepted offer; its document is recorded already."""
    value = document.value()
    connection.execute(
        "INSERT INTO contributions VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (
            document.digest,
            offer.datanet,
            value["sequence"],
            offer.contributor,
            offer.submitted_by,
            offer.licence,
            len(offer.examples),
            value["created_ms"],
        ),
    )
    connection.executemany(
        "INSERT INTO examples VALUES (?, ?) ON CONFLICT (digest) DO NOTHING",
        ((example.digest, example.content) for _, example in offer.examples),
    )
    connection.executemany(
        "INSERT INTO contribution_examples VALUES (?, ?, ?, ?)",
        ((offer.datanet, example.digest, document.digest, line) for line, example in offer.examples),
    )


def _refuse_duplicate(connection: apsw.Connection, offer: Offer, line: int, example: Example) -> None:
    rows = connection.execute(
        "SELECT c.contributor, c.digest, c.sequence, c.withdrawal IS NOT NULL FROM contribution_examples e"
        " JOIN contributions c ON c.digest = e.contribution WHERE e.datanet = ? AND e.example = ? ORDER BY c.sequence",
        (offer.datanet, example.digest),
    )
    for contributor, digest, sequence, withdrawn in rows:
        if withdrawn and contributor == offer.contributor:
            continue  # their own, taken back: they may give it again, nobody else may
        state = "withdrawn" if withdrawn else "accepted"
        raise DuplicateExample(
            f"line {line}: {contributor} contributed this example before: contribution {sequence}, {state}, {digest}",
            line=line,
            contributor=contributor,
            contribution=digest,
        )
