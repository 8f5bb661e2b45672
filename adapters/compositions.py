"""Compositions that requests ask for: made when first asked for, and their files kept while there is room.

Such a composition has no name and no registration. What is known of it (parts, facts, documents) stays for ever, since
events name it; its files are a cache, and the same parts and weights make the same bytes again.
"""

from collections.abc import Mapping
from pathlib import Path

import apsw

from adapters import outbox, pointers
from adapters.canonical import canonical_json, parse_canonical
from adapters.compose import compose
from adapters.errors import AdapterNotFound, AdapterRevoked, CompositionsFull, PackageTooLarge, RankTooHigh
from adapters.facts import composed_facts, package_documents
from adapters.install import Installation
from adapters.registry import RegisteredAdapter, Registry

KEPT_MS = (
    60_000  # after its last use the files stay this long, whatever wants their room: the engine may be loading them
)
TOUCHED_MS = 10_000  # a use is written down when the last one was longer ago, which spares most requests a write


class Compositions:
    """The compositions of registered adapters in registry.db and `$DATA/adapters/<hex>`, in `limit_bytes` of files.

    `parts` are digests of registered adapters with their weights in ppm, as `composition.check_parts` gives them.
    """

    def __init__(self, registry: Registry, directory: Path, publisher: str, limit_bytes: int) -> None:
        self._registry = registry
        self._database = registry.database
        self._installation = Installation(directory)
        self._publisher = publisher
        self._limit_bytes = limit_bytes

    def find(self, parts: Mapping[str, int]) -> RegisteredAdapter | None:
        """The composition of these parts, its files safe for KEPT_MS - TOUCHED_MS; None when it must be built.

        One that was registered as well is the registered one. Raises AdapterRevoked when that was revoked.
        """
        row = self._database.row(
            "SELECT digest, used_ms FROM compositions WHERE parts = ? AND used_ms IS NOT NULL ORDER BY created_ms DESC",
            (_key(parts),),
        )
        if row is None or not self._installation.path(row[0]).is_dir() or not self._touch(*row):
            return None
        adapter = self.by_digest(row[0])
        if adapter.revoked:
            raise AdapterRevoked(f"{adapter.digest}, which these parts and weights make, was revoked")
        return adapter

    def build(self, parts: Mapping[str, int]) -> RegisteredAdapter:
        """`find`, and else composes the parts and keeps the result; nothing is left when it fails.

        Raises AdapterNotFound and AdapterRevoked for a part, RankTooHigh, PackageTooLarge for files above the limit,
        CompositionsFull while all that would have to make way is in use, and what `compose` raises.
        """
        found = self.find(parts)
        if found:
            return found
        registered = [self._part(digest) for digest in parts]
        limits = self._registry.limits
        rank = sum(part.rank for part in registered)
        if rank > limits.max_rank:
            raise RankTooHigh(f"the parts have rank {rank} together, {limits.max_rank} is served")
        with self._installation.work() as folder:
            chosen = [(part.directory, parts[part.digest]) for part in registered]
            package = compose(chosen, self._registry.base, folder / "package", limits)
            facts = composed_facts(package, None, {part.digest: part.declared for part in registered})
            self._installation.seal(package)
            size = sum(path.stat().st_size for path in package.directory.iterdir())
            intact = self._installation.is_intact(package)
            with self._database.transaction() as connection:
                self._make_room(connection, size)
                self._installation.install(package, intact)
                for document in package_documents(self._installation.path(package.digest), package.digest, facts):
                    outbox.record(connection, document)
                now_ms = self._database.clock()
                connection.execute(
                    "INSERT INTO compositions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                    " SET used_ms = excluded.used_ms",
                    (package.digest, _key(parts), canonical_json(facts), size, now_ms, now_ms),
                )
        return self.by_digest(package.digest)

    def by_digest(self, digest: str) -> RegisteredAdapter:
        """A registered adapter, or a composition, kept or not. Raises AdapterNotFound."""
        try:
            return self._registry.by_digest(digest)
        except AdapterNotFound:
            row = self._database.row("SELECT facts, created_ms FROM compositions WHERE digest = ?", (digest,))
            if row is None:
                raise
        facts = parse_canonical(row[0])
        return RegisteredAdapter(
            digest=digest,
            directory=self._installation.path(digest),
            publisher=self._publisher,
            revoked=False,
            created_ms=row[1],
            **{**facts, "contributors": tuple(facts["contributors"])},
        )

    def _part(self, digest: str) -> RegisteredAdapter:
        part = self._registry.by_digest(digest)
        if part.revoked:
            raise AdapterRevoked(f"{digest}, a part of this composition, was revoked")
        return part

    def _touch(self, digest: str, used_ms: int) -> bool:
        """Writes down that it is used now; False when its files were just given up."""
        now_ms = self._database.clock()
        if now_ms - used_ms <= TOUCHED_MS:
            return True
        with self._database.transaction() as connection:
            statement = "UPDATE compositions SET used_ms = ? WHERE digest = ? AND used_ms IS NOT NULL RETURNING 1"
            return connection.execute(statement, (now_ms, digest)).get is not None

    def _make_room(self, connection: apsw.Connection, size: int) -> None:
        """Gives up the files of the least recently used, within the caller's transaction, until `size` bytes fit."""
        if size > self._limit_bytes:
            raise PackageTooLarge(f"this composition takes {size} bytes, all together may take {self._limit_bytes}")
        kept = self._database.rows(
            "SELECT digest, bytes, used_ms FROM compositions WHERE used_ms IS NOT NULL ORDER BY used_ms"
        )
        taken = sum(row[1] for row in kept)
        for digest, own_bytes, used_ms in kept:
            if taken + size <= self._limit_bytes:
                return
            if used_ms > self._database.clock() - KEPT_MS:
                raise CompositionsFull(f"{taken} of {self._limit_bytes} bytes are in use by other compositions")
            connection.execute("UPDATE compositions SET used_ms = NULL WHERE digest = ?", (digest,))
            if not pointers.is_wanted(self._database, digest):
                self._installation.remove(digest)
            taken -= own_bytes


def _key(parts: Mapping[str, int]) -> str:
    return canonical_json(dict(parts)).decode()
