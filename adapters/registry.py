"""The adapter registry: names that lead to digests, and the packages behind them."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import apsw

from adapters import namespaces, outbox, pointers
from adapters.base import BaseModel
from adapters.canonical import canonical_json, parse_canonical
from adapters.compose import check_composed
from adapters.database import Database
from adapters.datanet import DatanetStore
from adapters.declared import check_declared
from adapters.document import Document
from adapters.errors import (
    AdapterNotFound,
    AdapterRevoked,
    AdapterTaken,
    DeclaredFixed,
    NotOwner,
    StagingNotFound,
)
from adapters.facts import composed_facts, facts_of, package_documents
from adapters.install import Installation
from adapters.names import ModelName
from adapters.package import Package, PackageLimits
from adapters.pointers import RegisteredName

__all__ = ["RegisteredAdapter", "RegisteredName", "Registration", "Registry", "Staged"]


@dataclass(frozen=True)
class RegisteredAdapter:
    """What a name leads to, and the parts of its terms that this package knows (docs/ARCHITECTURE.md, "Terms").

    `declared` are integer weights per contributor (or publisher), not normalised; `contributors` are the head's rows.
    `head`, `datanet`, `datanet_version`, `trainer`, `host` are None when the package does not carry them. `composed_of`
    maps the parts of a composed adapter to their weights in ppm; it is empty for others.
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
    composed_of: Mapping[str, int] = field(default_factory=dict)


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
    """Adapters in registry.db and `$DATA/adapters/<hex>`, for one served base model."""

    def __init__(
        self, database: Database, directory: Path, base: BaseModel, limits: PackageLimits | None = None
    ) -> None:
        self.database = database
        self.base = base
        self.limits = limits or PackageLimits()
        self._installation = Installation(directory)
        self._datanets = DatanetStore(database)

    def claim(self, name: str, *, acting: str) -> None:
        """Give an account its own name as a namespace, once. Raises NamespaceTaken, NotOwner."""
        if name != acting:
            raise NotOwner(f"{acting} may claim its own name only, not {name}")
        with self.database.transaction() as connection:
            namespaces.claim(connection, name, acting, "account", self.database.clock())

    def stage(
        self, name: str, source: Path | BinaryIO, *, acting: str, declared: Mapping[str, int] | None = None
    ) -> Staged:
        """Check and install a package (directory, or tar stream) for `namespace/adapter[:tag]`; not resolvable yet.

        `declared` defaults as `default_declared` says, or to what the same bytes were registered with before.
        Raises InvalidName, NamespaceNotFound, NotOwner, PackageTooLarge, InvalidPackage, VersionNotFound,
        InvalidDeclared, AdapterTaken, AdapterRevoked, DeclaredFixed; for a composed adapter whose parts are not here
        AdapterNotFound, for one that is not their sum CompositionMismatch.
        """
        model = ModelName.parse(name)
        namespaces.require_owner(self.database, model.namespace, acting)
        chosen = None if declared is None else check_declared(declared)
        with self._installation.prepare(source, self.base, self.limits) as package:
            facts = self._facts(package, chosen, acting)
            known = self._row(package.digest)
            _refuse_conflict(known, package.digest, acting, chosen)
            facts = parse_canonical(known[1]) if known else facts
            intact = self._installation.is_intact(package)
            staged, now_ms = uuid.uuid4().hex, self.database.clock()
            with self.database.transaction() as connection:
                connection.execute(
                    "INSERT INTO stagings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        staged,
                        package.digest,
                        model.namespace,
                        model.adapter,
                        model.tag,
                        acting,
                        canonical_json(facts),
                        chosen is not None,
                        now_ms,
                    ),
                )
                self._installation.install(package, intact)
        return Staged(staged, model, package, self._adapter(package.digest, acting, facts, False, now_ms))

    def commit(self, staged: str) -> Registration:
        """Make a staged adapter resolvable: adapter, tag and documents in one transaction.

        The first tag under a name is promoted; later ones are not. Raises StagingNotFound, and AdapterTaken,
        AdapterRevoked, DeclaredFixed when another commit came in between (the staging is left to be discarded).
        """
        with self.database.transaction() as connection:
            row = self.database.row(
                "SELECT digest, namespace, adapter, tag, publisher, facts, explicit FROM stagings WHERE id = ?",
                (staged,),
            )
            if row is None:
                raise StagingNotFound(f"there is no staged adapter {staged}")
            digest, namespace, adapter, tag, publisher, facts, explicit = row
            known = self._row(digest)
            declared = parse_canonical(facts)["declared"] if explicit else None
            _refuse_conflict(known, digest, publisher, declared)
            documents = [] if known else self._insert(connection, digest, publisher, facts)
            name = ModelName(namespace, adapter, tag)
            documents += pointers.set_tag(connection, name, digest, publisher, self.database.clock())
            connection.execute("DELETE FROM stagings WHERE id = ?", (staged,))
        return Registration(name, self.by_digest(digest), tuple(documents))

    def discard(self, staged: str) -> None:
        """Drop a staged adapter, and its files when nothing else names them. Nothing to do when it is gone already."""
        with self.database.transaction() as connection:
            row = self.database.row("SELECT digest FROM stagings WHERE id = ?", (staged,))
            connection.execute("DELETE FROM stagings WHERE id = ?", (staged,))
            if row is not None and not pointers.is_wanted(self.database, row[0]):
                self._installation.remove(row[0])

    def register(
        self, name: str, source: Path | BinaryIO, *, acting: str, declared: Mapping[str, int] | None = None
    ) -> Registration:
        """`stage` and `commit` without a canary in between."""
        staged = self.stage(name, source, acting=acting, declared=declared)
        try:
            return self.commit(staged.id)
        except BaseException:
            self.discard(staged.id)
            raise

    def promote(self, name: str, to: str, *, acting: str) -> Document:
        """Let the bare `namespace/adapter` lead to a tag, or to a digest once registered under it.

        A promoted tag is followed when it is replaced. Raises InvalidName, AdapterNotFound, AdapterRevoked, NotOwner.
        """
        model = ModelName.parse(name)
        namespaces.require_owner(self.database, model.namespace, acting)
        with self.database.transaction() as connection:
            digest = pointers.target(self.database, model, to)
            if self.by_digest(digest).revoked:
                raise AdapterRevoked(f"{to} of {model} was revoked")
            return pointers.promote(connection, model, to, acting, self.database.clock())

    def revoke(self, digest: str, *, acting: str, operator: bool = False) -> Document:
        """Stop an adapter from being resolved, under every name; its files stay. By its publisher, or the operator.

        Raises AdapterNotFound, NotOwner, AdapterRevoked when it is already.
        """
        with self.database.transaction() as connection:
            adapter = self.by_digest(digest)
            if adapter.publisher != acting and not operator:
                raise NotOwner(f"only {adapter.publisher}, who published this adapter, may revoke it")
            if adapter.revoked:
                raise AdapterRevoked(f"the adapter {digest} was revoked before")
            value = {"type": "revocation", "adapter": digest, "revoked_by": acting, "as_operator": operator}
            document = outbox.record(connection, Document.of({**value, "created_ms": self.database.clock()}))
            connection.execute("UPDATE adapters SET revocation = ? WHERE digest = ?", (document.digest, digest))
        return document

    def resolve(self, name: str) -> RegisteredAdapter:
        """The adapter behind `namespace/adapter` or `namespace/adapter:tag`.

        Raises InvalidName, AdapterNotFound (also for an adapter of another base than the served one), AdapterRevoked.
        """
        model = ModelName.parse(name)
        adapter = self.by_digest(pointers.target(self.database, model, model.tag))
        if adapter.revoked:
            raise AdapterRevoked(f"{model} leads to an adapter that was revoked")
        if adapter.base != self.base.digest:
            raise AdapterNotFound(f"{model} was made for the base model {adapter.base}, which is not served")
        return adapter

    def by_digest(self, digest: str) -> RegisteredAdapter:
        """A committed adapter, revoked or not. Raises AdapterNotFound."""
        row = self._row(digest)
        if row is None:
            raise AdapterNotFound(f"there is no adapter {digest}")
        publisher, facts, revoked, created_ms = row
        return self._adapter(digest, publisher, parse_canonical(facts), bool(revoked), created_ms)

    def list(self, namespace: str | None = None) -> builtins.list[RegisteredName]:
        """All names, or those of one namespace, sorted."""
        return pointers.names(self.database, namespace)

    def show(self, name: str) -> RegisteredName:
        """A name with its tags. Raises InvalidName, AdapterNotFound."""
        model = ModelName.parse(name)
        for registered in pointers.names(self.database, model.namespace):
            if registered.adapter == model.adapter:
                return registered
        raise AdapterNotFound(f"there is no adapter {model}")

    def recover(self, older_than_ms: int = 0) -> int:
        """Drop stagings, work in progress and unnamed package directories that a crash left; returns how many.

        Call it at start, before anything is staged, or with an age that no staging in progress reaches.
        """
        before_ms = self.database.clock() - older_than_ms
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM stagings WHERE created_ms <= ?", (before_ms,))
            dropped = self.database.row("SELECT changes()")
            installed = self._installation.digests()
            orphans = [digest for digest in installed if not pointers.is_wanted(self.database, digest)]
            for digest in orphans:
                self._installation.remove(digest)
        return (dropped[0] if dropped else 0) + len(orphans) + self._installation.sweep(before_ms)

    def _facts(self, package: Package, declared: Mapping[str, int] | None, publisher: str) -> dict[str, Any]:
        if package.composition is None:
            return facts_of(self._datanets, package, declared, publisher)
        parts = {adapter: self.by_digest(adapter) for adapter in package.composition.parts}
        for part in parts.values():
            if part.revoked:
                raise AdapterRevoked(f"{part.digest}, a part of this adapter, was revoked")
        directories = {adapter: part.directory for adapter, part in parts.items()}
        check_composed(package, directories, self.base, self.limits)
        return composed_facts(package, declared, {adapter: part.declared for adapter, part in parts.items()})

    def _insert(
        self, connection: apsw.Connection, digest: str, publisher: str, facts: bytes
    ) -> builtins.list[Document]:
        now_ms = self.database.clock()
        value = parse_canonical(facts)
        documents = package_documents(self._installation.path(digest), digest, value)
        terms = {"adapter": digest, "publisher": publisher, "declared": value["declared"], "created_ms": now_ms}
        documents.append(Document.of({"type": "registration", **terms}))
        for document in documents:
            outbox.record(connection, document)
        connection.execute("INSERT INTO adapters VALUES (?, ?, ?, ?, NULL)", (digest, publisher, facts, now_ms))
        return documents

    def _row(self, digest: str) -> tuple[Any, ...] | None:
        return self.database.row(
            "SELECT publisher, facts, revocation IS NOT NULL, created_ms FROM adapters WHERE digest = ?", (digest,)
        )

    def _adapter(
        self, digest: str, publisher: str, facts: Mapping[str, Any], revoked: bool, created_ms: int
    ) -> RegisteredAdapter:
        return RegisteredAdapter(
            digest=digest,
            directory=self._installation.path(digest),
            publisher=publisher,
            revoked=revoked,
            created_ms=created_ms,
            **{**facts, "contributors": tuple(facts["contributors"])},
        )


def _refuse_conflict(row: tuple[Any, ...] | None, digest: str, acting: str, declared: Mapping[str, int] | None) -> None:
    if row is None:
        return
    publisher, facts, revoked, _ = row
    if revoked:
        raise AdapterRevoked(f"the adapter {digest} was revoked and stays so")
    if publisher != acting:
        raise AdapterTaken(f"{publisher} registered the same adapter, {digest}, before")
    if declared is not None and parse_canonical(facts)["declared"] != dict(declared):
        raise DeclaredFixed(f"the adapter {digest} was registered with other declared shares, which do not change")
