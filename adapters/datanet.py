"""Datanets: public data sets with named contributors. Who may do what, and what each act leaves for the log."""

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.database import Database
from adapters.document import Document
from adapters.example import ExampleLimits
from adapters.version import DatanetVersion


@dataclass(frozen=True, slots=True)
class Datanet:
    """A Datanet as it stands. Counts are of accepted, not withdrawn, examples; `latest_version` is None before the first."""

    name: str
    owner: str
    licence: str
    title: str
    description: str
    split_ppm: Mapping[str, int]
    policy_digest: str
    contributors: Mapping[str, int]
    examples: int
    latest_version: str | None
    created_ms: int


@dataclass(frozen=True, slots=True)
class Contribution:
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
class VersionSummary:
    datanet: str
    digest: str
    sequence: int
    examples: int
    created_ms: int


class DatanetStore:
    """Datanets in registry.db. Every changing call takes the acting account and returns the documents it made.

    Documents are also kept in the database in the transaction that made them; `documents_after` gives a caller that
    crashed before logging them what it missed.
    """

    def __init__(self, database: Database, limits: ExampleLimits | None = None) -> None:
        raise NotImplementedError

    def create(
        self,
        name: str,
        *,
        owner: str,
        licence: str,
        title: str,
        description: str = "",
        split_ppm: Mapping[str, int] | None = None,
    ) -> list[Document]:
        """Claim the namespace `name` for a new Datanet; returns its `datanet` and its first `policy` document.

        Raises InvalidName, InvalidLicence, InvalidPolicy, NamespaceTaken.
        """
        raise NotImplementedError

    def set_policy(self, name: str, split_ppm: Mapping[str, int], *, acting: str) -> Document:
        """Record a new policy; it holds for versions and terms made from now on. Raises NotOwner, InvalidPolicy."""
        raise NotImplementedError

    def contribute(
        self, name: str, jsonl: bytes, *, acting: str, licence: str, contributor: str | None = None
    ) -> Document:
        """Accept all lines of `jsonl`, or none, as one contribution of `contributor` (the acting account by default).

        Only the Datanet's owner may post on behalf of another contributor; the document names both. The document's
        digest is the contribution's name. Raises DatanetNotFound, NotOwner, InvalidLicence, InvalidExample,
        ContributionTooLarge, DuplicateExample.
        """
        raise NotImplementedError

    def withdraw(self, contribution: str, *, acting: str) -> Document:
        """Leave a contribution out of later versions; earlier versions keep it. By its contributor or the Datanet's owner.

        Raises ContributionNotFound, NotOwner, AlreadyWithdrawn.
        """
        raise NotImplementedError

    def version(self, name: str, *, acting: str) -> Document:
        """The version of what is accepted now: made if new, the same document again otherwise.

        The document's member `version` is the Merkle root that names the version. Any account may ask.
        Raises DatanetNotFound, EmptyDatanet.
        """
        raise NotImplementedError

    def show(self, name: str) -> Datanet:
        """Raises DatanetNotFound."""
        raise NotImplementedError

    def list(self) -> list[Datanet]:
        """All Datanets by name."""
        raise NotImplementedError

    def contributions(self, name: str) -> list[Contribution]:
        """In the order in which they came, withdrawn ones included. Raises DatanetNotFound."""
        raise NotImplementedError

    def versions(self, name: str) -> list[VersionSummary]:
        """In the order in which they were made. Raises DatanetNotFound."""
        raise NotImplementedError

    def load(self, name: str, version: str | None = None) -> DatanetVersion:
        """A version with its examples: by digest, or the latest. Raises DatanetNotFound, VersionNotFound."""
        raise NotImplementedError

    def documents_after(self, sequence: int, limit: int = 1000) -> list[tuple[int, Document]]:
        """Documents of Datanets and adapters with a higher sequence number, in the order in which they came to be."""
        raise NotImplementedError
