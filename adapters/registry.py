"""The adapter registry: names that lead to digests, and the packages behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapters.base import BaseModel
from adapters.database import Database
from adapters.document import Document
from adapters.names import ModelName
from adapters.package import Package, PackageLimits


@dataclass(frozen=True)
class RegisteredAdapter:
    """What a name leads to, and the parts of its terms that this package knows (docs/ARCHITECTURE.md, "Terms").

    `declared` are integer weights per contributor (or publisher), not normalised. `head`, `datanet`, ... are None when
    the package does not carry them.
    """

    digest: str
    directory: Path
    base: str
    rank: int
    publisher: str
    head: str | None
    method: str
    fidelity_ppm: int
    datanet: str | None
    datanet_version: str | None
    trainer: str | None
    host: str | None
    contributors: tuple[str, ...]
    declared: Mapping[str, int]
    revoked: bool
    created_ms: int


@dataclass(frozen=True)
class RegisteredName:
    """A name, the tag or digest it is promoted to, and its tags."""

    namespace: str
    adapter: str
    promoted: str
    tags: Mapping[str, str]
    owner: str


@dataclass(frozen=True)
class Staged:
    """A validated, installed and not yet resolvable adapter: `commit` or `discard` it by its `id`."""

    id: str
    name: ModelName
    package: Package
    adapter: RegisteredAdapter


@dataclass(frozen=True)
class Registration:
    """The outcome of a commit. `documents` are for the log, empty when nothing changed."""

    name: ModelName
    adapter: RegisteredAdapter
    documents: tuple[Document, ...]


class Registry:
    """Adapters in registry.db and `$DATA/adapters/<hex>`."""

    def __init__(
        self, database: Database, directory: Path, base: BaseModel, limits: PackageLimits | None = None
    ) -> None:
        raise NotImplementedError

    def claim(self, name: str, *, acting: str) -> None:
        """Give an account its own name as a namespace; nothing to do when it has it. Raises NamespaceTaken, NotOwner."""
        raise NotImplementedError

    def stage(
        self,
        name: str,
        source: Path | BinaryIO,
        *,
        acting: str,
        declared: Mapping[str, int] | None = None,
    ) -> Staged:
        """Check and install a package (a directory, or a tar stream) for `namespace/adapter[:tag]`; not resolvable yet.

        `declared` defaults to the training tokens per contributor of the training record, else to the publisher alone.
        Raises InvalidName, NamespaceNotFound, NotOwner, PackageTooLarge, InvalidPackage, VersionNotFound,
        InvalidDeclared, AdapterTaken, AdapterRevoked, DeclaredFixed.
        """
        raise NotImplementedError

    def commit(self, staged: str) -> Registration:
        """Make a staged adapter resolvable: adapter, tag and documents in one transaction. Raises StagingNotFound."""
        raise NotImplementedError

    def discard(self, staged: str) -> None:
        """Drop a staged adapter, and its files when nothing else names them. Nothing to do when it is gone already."""
        raise NotImplementedError

    def register(
        self,
        name: str,
        source: Path | BinaryIO,
        *,
        acting: str,
        declared: Mapping[str, int] | None = None,
    ) -> Registration:
        """`stage` and `commit` without a canary in between."""
        raise NotImplementedError

    def promote(self, name: str, to: str, *, acting: str) -> Document:
        """Let the bare `namespace/adapter` lead to a tag, or to a digest once registered under it.

        Raises AdapterNotFound, AdapterRevoked, NotOwner.
        """
        raise NotImplementedError

    def revoke(self, digest: str, *, acting: str, operator: bool = False) -> Document:
        """Stop an adapter from being resolved, under every name; its files stay. By its publisher, or the operator.

        Raises AdapterNotFound, NotOwner, AdapterRevoked when it is already.
        """
        raise NotImplementedError

    def resolve(self, name: str) -> RegisteredAdapter:
        """The adapter behind `namespace/adapter` or `namespace/adapter:tag`.

        Raises InvalidName, AdapterNotFound, AdapterRevoked.
        """
        raise NotImplementedError

    def by_digest(self, digest: str) -> RegisteredAdapter:
        """A committed adapter, revoked or not. Raises AdapterNotFound."""
        raise NotImplementedError

    def list(self, namespace: str | None = None) -> list[RegisteredName]:
        """All names, or those of one namespace, sorted."""
        raise NotImplementedError

    def show(self, name: str) -> RegisteredName:
        """Raises InvalidName, AdapterNotFound."""
        raise NotImplementedError

    def recover(self, older_than_ms: int = 0) -> int:
        """Drop stagings, temporary directories and unnamed package directories left by a crash; returns how many.

        Call it at start, before anything is staged, or with an age that no staging in progress has.
        """
        raise NotImplementedError
