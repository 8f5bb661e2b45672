"""Pointers: from `namespace/adapter` to its promoted tag or digest, from a tag to a digest. Replaced in one step."""

from collections.abc import Mapping
from dataclasses import dataclass

import apsw

from adapters import outbox
from adapters.database import Database
from adapters.digests import is_digest
from adapters.document import Document
from adapters.errors import AdapterNotFound
from adapters.names import DEFAULT_TAG, ModelName


@dataclass(frozen=True)
class RegisteredName:
    """A name, the tag or digest it is promoted to, and the digest of each of its tags."""

    namespace: str
    adapter: str
    promoted: str
    tags: Mapping[str, str]
    owner: str


def target(database: Database, name: ModelName, to: str | None) -> str:
    """The digest that a tag, a digest or (None) the promotion of a name leads to. Raises AdapterNotFound."""
    where = (name.namespace, name.adapter)
    if to is None:
        row = database.row("SELECT promoted FROM adapter_names WHERE namespace = ? AND adapter = ?", where)
        if row is None:
            raise AdapterNotFound(f"there is no adapter {name}")
        to = row[0]
    table = "name_digests WHERE digest" if is_digest(to) else "tags WHERE tag"
    found = database.row(f"SELECT digest FROM {table} = ? AND namespace = ? AND adapter = ?", (to, *where))
    if found is None:
        raise AdapterNotFound(f"there is no adapter {name.namespace}/{name.adapter} with {to}")
    return found[0]


def set_tag(connection: apsw.Connection, name: ModelName, digest: str, acting: str, now_ms: int) -> list[Document]:
    """Point a tag (`latest` by default) to a digest, within the caller's transaction; returns what changed."""
    where = (name.namespace, name.adapter)
    tag = name.tag or DEFAULT_TAG
    documents = []
    known = connection.execute("SELECT 1 FROM adapter_names WHERE namespace = ? AND adapter = ?", where).get
    if not known:
        connection.execute("INSERT INTO adapter_names VALUES (?, ?, ?)", (*where, tag))
    previous = connection.execute(
        "SELECT digest FROM tags WHERE namespace = ? AND adapter = ? AND tag = ?", (*where, tag)
    ).get
    if previous != digest:
        connection.execute(
            "INSERT INTO tags VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET digest = excluded.digest, updated_ms = excluded.updated_ms",
            (*where, tag, digest, now_ms),
        )
        connection.execute("INSERT INTO name_digests VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (*where, digest))
        value = {"type": "tag", "name": "/".join(where), "tag": tag, "adapter": digest, "previous": previous}
        documents.append(Document.of({**value, "set_by": acting, "created_ms": now_ms}))
    if not known:
        documents.append(_promotion(name, tag, acting, now_ms))
    return [outbox.record(connection, document) for document in documents]


def promote(connection: apsw.Connection, name: ModelName, to: str, acting: str, now_ms: int) -> Document:
    """Let the bare name lead to a tag or digest, within the caller's transaction; the caller has checked `target`."""
    connection.execute(
        "UPDATE adapter_names SET promoted = ? WHERE namespace = ? AND adapter = ?", (to, name.namespace, name.adapter)
    )
    return outbox.record(connection, _promotion(name, to, acting, now_ms))


def names(database: Database, namespace: str | None = None) -> list[RegisteredName]:
    """All names, or those of one namespace, sorted."""
    tags: dict[tuple[str, str], dict[str, str]] = {}
    for space, adapter, tag, digest in database.rows(
        "SELECT namespace, adapter, tag, digest FROM tags WHERE namespace = coalesce(?, namespace) ORDER BY tag",
        (namespace,),
    ):
        tags.setdefault((space, adapter), {})[tag] = digest
    rows = database.rows(
        "SELECT a.namespace, a.adapter, a.promoted, n.owner FROM adapter_names a JOIN namespaces n"
        " ON n.name = a.namespace WHERE a.namespace = coalesce(?, a.namespace) ORDER BY a.namespace, a.adapter",
        (namespace,),
    )
    return [
        RegisteredName(space, adapter, promoted, tags.get((space, adapter), {}), owner)
        for space, adapter, promoted, owner in rows
    ]


def is_wanted(database: Database, digest: str) -> bool:
    """Whether the files of a package are needed: it is registered, staged, or a composition that is kept."""
    statement = (
        "SELECT 1 FROM adapters WHERE digest = ?1 UNION SELECT 1 FROM stagings WHERE digest = ?1"
        " UNION SELECT 1 FROM compositions WHERE digest = ?1 AND used_ms IS NOT NULL"
    )
    return database.row(statement, (digest,)) is not None


def _promotion(name: ModelName, to: str, acting: str, now_ms: int) -> Document:
    value = {"type": "promotion", "name": f"{name.namespace}/{name.adapter}", "to": to, "set_by": acting}
    return Document.of({**value, "created_ms": now_ms})
