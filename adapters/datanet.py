"""Datanets: public data sets with named contributors. Who may do what, and what each act leaves for the log."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import apsw

from adapters import namespaces, outbox, voting
from adapters.contribution import Contribution, accept, insert, make_offer
from adapters.database import Database
from adapters.document import Document
from adapters.errors import (
    AlreadyWithdrawn,
    ContributionNotFound,
    DatanetNotFound,
    NotOwner,
    PolicyByVote,
    VersionNotFound,
)
from adapters.example import Example, ExampleLimits
from adapters.licence import check_licence
from adapters.names import check_name
from adapters.near_duplicates import SET_ASIDE, check_near_duplicates
from adapters.policy import DEFAULT_SPLIT_PPM, check_split, in_force, next_month, policy_document
from adapters.version import (
    AcceptedExample,
    DatanetVersion,
    NearDuplicate,
    VersionExample,
    compared,
    contributions_of,
    repeated,
    version_facts,
)

__all__ = ["Contribution", "Datanet", "DatanetStore", "VersionSummary"]


@dataclass(frozen=True, slots=True)
class Datanet:
    """A Datanet as it stands: counts are of accepted, not withdrawn, examples.

    `contributors` maps names to examples; `latest_version` is None before the first version. `split_ppm` and
    `policy_digest` are of the policy in force; `scheduled` are recorded changes whose period has not begun.
    `near_duplicates` says whether versions accept them or set them aside.
    """

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
    scheduled: tuple[Mapping[str, Any], ...] = ()
    near_duplicates: str = SET_ASIDE


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
        self.database = database
        self.limits = limits or ExampleLimits()

    def create(
        self,
        name: str,
        *,
        owner: str,
        licence: str,
        title: str,
        description: str = "",
        split_ppm: Mapping[str, int] | None = None,
        near_duplicates: str = SET_ASIDE,
    ) -> builtins.list[Document]:
        """Claim the namespace `name` for a new Datanet; returns its `datanet` and its first `policy` document.

        `licence` is what contributions get that name none. `near_duplicates` "set-aside" leaves examples that repeat an
        earlier one out of versions, "accept" does not look for them; it stays as it is. Raises InvalidName,
        InvalidLicence, InvalidPolicy, InvalidNearDuplicates, NamespaceTaken.
        """
        check_near_duplicates(near_duplicates)
        licence = check_licence(licence)
        split = check_split(DEFAULT_SPLIT_PPM if split_ppm is None else split_ppm)
        now_ms = self.database.clock()
        described = {"name": name, "owner": owner, "licence": licence, "title": title, "description": description}
        described["near_duplicates"] = near_duplicates
        datanet = Document.of({"type": "datanet", **described, "created_ms": now_ms})
        policy = policy_document(name, split, owner, now_ms)
        with self.database.transaction() as connection:
            namespaces.claim(connection, name, owner, "datanet", now_ms)
            outbox.record(connection, datanet)
            outbox.record(connection, policy)
            connection.execute(
                "INSERT INTO datanets VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)",
                (name, licence, title, description, now_ms, datanet.digest, policy.digest, near_duplicates),
            )
        return [datanet, policy]

    def set_policy(
        self, name: str, split_ppm: Mapping[str, int], *, acting: str, effective: str | None = None
    ) -> Document:
        """Record a new policy, for all adapters on the Datanet, from the first day of the period `effective` on.

        That is a month YYYY-MM (by default the next) or a day YYYY-MM-DD, UTC, and lies ahead: what was served
        before is paid as promised. Of changes for one time, the last recorded holds. The same again changes nothing.
        Raises DatanetNotFound, NotOwner, PolicyByVote, InvalidPolicy, RetroactivePolicy.
        """
        split = check_split(split_ppm)
        with self.database.transaction() as connection:
            if self._owner(name) != acting:
                raise NotOwner(f"only its owner, {self._owner(name)}, sets the policy of {name}")
            current, now_ms = self._policy(name), self.database.clock()
            known = current.value()
            if "votes" in known:
                raise PolicyByVote(f"the contributors of {name} have voted on its policy; only a vote changes it")
            if known["split_ppm"] == split and effective in (None, known.get("effective")):
                return current
            policy = policy_document(name, split, acting, now_ms, current.digest, effective)
            outbox.record(connection, policy)
            connection.execute("UPDATE datanets SET policy = ? WHERE name = ?", (policy.digest, name))
        return policy

    def vote(
        self, name: str, split_ppm: Mapping[str, int], *, acting: str, effective: str | None = None
    ) -> builtins.list[Document]:
        """Vote for a split from a period on (see set_policy); the vote, and the policy if it made a majority.

        Contributors vote; a vote weighs as many examples as its voter would have in a version made now, where near
        duplicates that are set aside are in none, and replaces the voter's last. Once votes for the very same have more
        than half of all such examples behind them, they make the policy, and from then on only votes change it. Raises
        DatanetNotFound, NotContributor, InvalidPolicy, RetroactivePolicy.
        """
        split = check_split(split_ppm)
        self._owner(name)
        while True:
            rows, aside = self._compared(name)  # outside of the transaction, as for a version
            behind = Counter(item.contributor for item in rows if item.example not in (aside or {}))
            with self.database.transaction() as connection:
                if self._accepted(name) == contributions_of(rows):
                    return self._vote(connection, name, split, effective, acting, behind)

    def contribute(
        self, name: str, jsonl: bytes, *, acting: str, licence: str | None = None, contributor: str | None = None
    ) -> Document:
        """Accept all lines of `jsonl`, or none, as one contribution of `contributor` (the acting account by default).

        Only the Datanet's owner may post on behalf of another contributor; the document names both. The document's
        digest is the contribution's name. `licence` defaults to the Datanet's. Raises DatanetNotFound, NotOwner,
        InvalidLicence, InvalidExample, ContributionTooLarge, DuplicateExample.
        """
        owner = self._owner(name)
        contributor = check_name(acting if contributor is None else contributor, "contributor")
        if contributor != acting and acting != owner:
            raise NotOwner(f"only the owner of {name}, {owner}, may contribute on behalf of {contributor}")
        licence = self.show(name).licence if licence is None else check_licence(licence)
        offer = make_offer(name, contributor, acting, licence, jsonl, self.limits)
        with self.database.transaction() as connection:
            document = accept(connection, offer, self.database.clock())
            outbox.record(connection, document)
            insert(connection, document, offer)
        return document

    def withdraw(self, contribution: str, *, acting: str) -> Document:
        """Leave a contribution out of later versions; earlier versions keep it.

        Its contributor and the Datanet's owner may. Raises ContributionNotFound, NotOwner, AlreadyWithdrawn.
        """
        with self.database.transaction() as connection:
            row = connection.execute(
                "SELECT datanet, contributor, withdrawal FROM contributions WHERE digest = ?", (contribution,)
            ).fetchone()
            if row is None:
                raise ContributionNotFound(f"there is no contribution {contribution}")
            datanet, contributor, withdrawal = row
            if acting not in (contributor, self._owner(datanet)):
                raise NotOwner(f"only {contributor} or the owner of {datanet} may withdraw this contribution")
            if withdrawal is not None:
                raise AlreadyWithdrawn(f"contribution {contribution} was withdrawn before")
            value = {"type": "withdrawal", "datanet": datanet, "contribution": contribution, "withdrawn_by": acting}
            document = outbox.record(connection, Document.of({**value, "created_ms": self.database.clock()}))
            connection.execute(
                "UPDATE contributions SET withdrawal = ? WHERE digest = ?", (document.digest, contribution)
            )
        return document

    def version(self, name: str, *, acting: str) -> Document:
        """The version of what is accepted now: made if new, else the document it was made with.

        The document's member `version` is the Merkle root that names the version. Any account may ask for it. Unless
        the Datanet accepts near duplicates, they are not in it, and the document commits to which and for which
        example. Raises DatanetNotFound, EmptyDatanet.
        """
        self._owner(name)
        while True:
            rows, aside = self._compared(name)  # hashes and compares everything: outside of the transaction
            facts = version_facts(name, rows, aside)
            with self.database.transaction() as connection:
                if self._accepted(name) == facts["contributions"]:
                    return self._record_version(connection, facts, aside or {}, acting)

    def near_duplicates(self, name: str) -> builtins.list[NearDuplicate]:
        """Accepted examples that repeat an earlier one: what a version made now sets aside, or would, were it asked to.

        Raises DatanetNotFound.
        """
        self._owner(name)
        rows = {item.example: item for item in self._offered(name)}
        return [compared(rows[one], rows[other]) for one, other in repeated([*rows.values()]).items()]

    def show(self, name: str) -> Datanet:
        """A Datanet as it stands. Raises DatanetNotFound."""
        owner = self._owner(name)
        licence, title, description, created_ms, near_duplicates = self.database.rows(
            "SELECT licence, title, description, created_ms, near_duplicates FROM datanets WHERE name = ?", (name,)
        )[0]
        counts = dict(
            self.database.rows(
                "SELECT contributor, sum(examples) FROM contributions WHERE datanet = ? AND withdrawal IS NULL"
                " GROUP BY contributor ORDER BY contributor",
                (name,),
            )
        )
        policy = self.policy_in_force(name)
        return Datanet(
            name=name,
            owner=owner,
            licence=licence,
            title=title,
            description=description,
            split_ppm=policy.value()["split_ppm"],
            policy_digest=policy.digest,
            contributors=counts,
            examples=sum(counts.values()),
            latest_version=self._latest(name),
            created_ms=created_ms,
            scheduled=self._scheduled(name, policy.digest),
            near_duplicates=near_duplicates,
        )

    def list(self) -> builtins.list[Datanet]:
        """All Datanets by name."""
        return [self.show(name) for (name,) in self.database.rows("SELECT name FROM datanets ORDER BY name")]

    def contributions(self, name: str) -> builtins.list[Contribution]:
        """In the order in which they came, withdrawn ones included. Raises DatanetNotFound."""
        self._owner(name)
        rows = self.database.rows(
            "SELECT digest, datanet, sequence, contributor, submitted_by, licence, examples, created_ms,"
            " withdrawal IS NOT NULL FROM contributions WHERE datanet = ? ORDER BY sequence",
            (name,),
        )
        return [Contribution(*(*row[:8], bool(row[8]))) for row in rows]

    def versions(self, name: str) -> builtins.list[VersionSummary]:
        """In the order in which they were made. Raises DatanetNotFound."""
        self._owner(name)
        rows = self.database.rows(
            "SELECT datanet, digest, sequence, examples, created_ms FROM versions WHERE datanet = ? ORDER BY sequence",
            (name,),
        )
        return [VersionSummary(*row) for row in rows]

    def load(self, name: str, version: str | None = None) -> DatanetVersion:
        """A version with its examples: by digest, or the latest. Raises DatanetNotFound, VersionNotFound."""
        document = self.version_document(name, version)
        digest = document.value()["version"]
        aside = dict(self.database.rows(_SET_ASIDE, (name, digest)))
        kept: builtins.list[VersionExample] = []
        repeats: builtins.list[VersionExample] = []
        for contributor, example, licence, contribution, content in self.database.rows(_EXAMPLES, (name, digest)):
            item = VersionExample(example, contributor, licence, contribution, Example.decode(content))
            (repeats if example in aside else kept).append(item)
        split = self.version_split(name, digest)
        return DatanetVersion(name, digest, tuple(kept), split, document.content, tuple(repeats), aside)

    def version_document(self, name: str, version: str | None = None) -> Document:
        """The document of a version, without its examples. Raises DatanetNotFound, VersionNotFound."""
        self._owner(name)
        digest = self._latest(name) if version is None else version
        row = self.database.row("SELECT document FROM versions WHERE datanet = ? AND digest = ?", (name, digest))
        if row is None:
            raise VersionNotFound(f"{name} has no version {digest}" if digest else f"{name} has no version yet")
        return outbox.read(self.database, row[0])

    def find_version(self, version: str) -> dict[str, Any] | None:
        """The members of a version's document, whichever Datanet it is of; None when there is no such version."""
        row = self.database.row("SELECT document FROM versions WHERE digest = ?", (version,))
        return None if row is None else outbox.read(self.database, row[0]).value()

    def version_split(self, name: str, version: str) -> dict[str, int]:
        """The policy's split in force when a version was made. Raises DatanetNotFound, VersionNotFound."""
        policy = self.version_document(name, version).value()["policy"]
        return outbox.read(self.database, policy).value()["split_ppm"]

    def policy_in_force(self, name: str) -> Document:
        """The policy by which tokens are paid now. Raises DatanetNotFound."""
        return in_force(self._policy(name), lambda digest: outbox.read(self.database, digest), self.database.clock())

    def document(self, digest: str) -> Document:
        """A kept document, by its digest; KeyError."""
        return outbox.read(self.database, digest)

    def documents_after(self, sequence: int, limit: int = 1000) -> builtins.list[tuple[int, Document]]:
        """Documents of Datanets and adapters with a higher sequence number; see `outbox.documents_after`."""
        return outbox.documents_after(self.database, sequence, limit)

    def _accepted(self, name: str) -> builtins.list[str]:
        rows = self.database.rows(
            "SELECT digest FROM contributions WHERE datanet = ? AND withdrawal IS NULL ORDER BY sequence", (name,)
        )
        return [digest for (digest,) in rows]

    def _offered(self, name: str) -> builtins.list[AcceptedExample]:
        return [AcceptedExample(*row) for row in self.database.rows(_ACCEPTED, (name,))]

    def _compared(self, name: str) -> tuple[builtins.list[AcceptedExample], dict[str, str] | None]:
        """What is accepted, and what of it a version sets aside: None in a Datanet that accepts near duplicates."""
        rows = self._offered(name)
        choice = self.database.rows("SELECT near_duplicates FROM datanets WHERE name = ?", (name,))[0][0]
        return rows, repeated(rows) if choice == SET_ASIDE else None

    def _vote(
        self,
        connection: apsw.Connection,
        name: str,
        split: Mapping[str, int],
        effective: str | None,
        voter: str,
        behind: Mapping[str, int],
    ) -> builtins.list[Document]:
        current, now_ms = self._policy(name), self.database.clock()
        vote = voting.cast(connection, name, split, effective or next_month(now_ms), voter, behind, now_ms)
        policy = voting.decide(connection, vote, current, behind, now_ms)
        if policy is None:
            return [vote]
        connection.execute("UPDATE datanets SET policy = ? WHERE name = ?", (policy.digest, name))
        return [vote, policy]

    def _record_version(
        self, connection: apsw.Connection, facts: Mapping[str, Any], aside: Mapping[str, str], acting: str
    ) -> Document:
        """The document of a version, kept before or new; it is the latest from now on."""
        name, digest = facts["datanet"], facts["version"]
        connection.execute("UPDATE datanets SET latest = ? WHERE name = ?", (digest, name))
        known = self.database.row("SELECT document FROM versions WHERE datanet = ? AND digest = ?", (name, digest))
        if known is not None:
            return outbox.read(self.database, known[0])
        described, sequence = self.database.rows(
            "SELECT document, 1 + (SELECT count(*) FROM versions WHERE datanet = name) FROM datanets WHERE name = ?",
            (name,),
        )[0]
        policy = self.policy_in_force(name).digest
        made = {"sequence": sequence, "made_by": acting, "created_ms": self.database.clock()}
        value = {"type": "datanet-version", "datanet_document": described, "policy": policy, **facts, **made}
        document = outbox.record(connection, Document.of(value))
        connection.execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)",
            (name, digest, sequence, facts["examples"], made["created_ms"], document.digest),
        )
        connection.executemany(
            "INSERT INTO version_contributions VALUES (?, ?, ?)",
            ((name, digest, contribution) for contribution in facts["contributions"]),
        )
        connection.executemany(
            "INSERT INTO version_set_aside VALUES (?, ?, ?, ?)",
            ((name, digest, example, other) for example, other in aside.items()),
        )
        return document

    def _owner(self, name: str) -> str:
        row = self.database.row(
            "SELECT n.owner FROM datanets d JOIN namespaces n ON n.name = d.name WHERE d.name = ?", (name,)
        )
        if row is None:
            raise DatanetNotFound(f"there is no Datanet {name}")
        return row[0]

    def _scheduled(self, name: str, holds: str) -> tuple[Mapping[str, Any], ...]:
        """Changes recorded after the policy that holds, oldest first."""
        policy, found = self._policy(name), []
        while policy.digest != holds:
            value = policy.value()
            found.append({"digest": policy.digest, "effective": value["effective"], "split_ppm": value["split_ppm"]})
            policy = outbox.read(self.database, value["previous"])
        return tuple(reversed(found))

    def _policy(self, name: str) -> Document:
        """The policy recorded last, whether it holds already or not."""
        row = self.database.row("SELECT policy FROM datanets WHERE name = ?", (name,))
        if row is None:
            raise DatanetNotFound(f"there is no Datanet {name}")
        return outbox.read(self.database, row[0])

    def _latest(self, name: str) -> str | None:
        row = self.database.row("SELECT latest FROM datanets WHERE name = ?", (name,))
        return None if row is None else row[0]


_ACCEPTED = """
SELECT c.contributor, e.example, c.licence, c.digest, x.content
FROM contributions c JOIN contribution_examples e ON e.contribution = c.digest JOIN examples x ON x.digest = e.example
WHERE c.datanet = ? AND c.withdrawal IS NULL
ORDER BY c.sequence
"""

_SET_ASIDE = "SELECT example, near_duplicate_of FROM version_set_aside WHERE datanet = ? AND version = ?"

_EXAMPLES = """
SELECT c.contributor, e.example, c.licence, c.digest, x.content
FROM version_contributions v JOIN contributions c ON c.digest = v.contribution
JOIN contribution_examples e ON e.contribution = c.digest JOIN examples x ON x.digest = e.example
WHERE v.datanet = ? AND v.version = ?
ORDER BY c.contributor, e.example
"""
