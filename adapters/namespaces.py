"""Namespaces: the first segment of a model's name, owned by one account."""

from typing import Literal

import apsw

from adapters.database import Database
from adapters.errors import NamespaceNotFound, NamespaceTaken, NotOwner
from adapters.names import check_name

Kind = Literal["account", "datanet"]


def claim(connection: apsw.Connection, name: str, owner: str, kind: Kind, now_ms: int) -> bool:
    """Give `name` to `owner`, within the caller's transaction; False when it is theirs already, as the same kind.

    Raises InvalidName, NamespaceTaken.
    """
    check_name(name, "namespace")
    check_name(owner, "account")
    row = connection.execute("SELECT owner, kind FROM namespaces WHERE name = ?", (name,)).fetchone()
    if row == (owner, "account") and kind == "account":
        return False
    if row is not None:
        raise NamespaceTaken(f"the namespace {name} belongs to {row[0]} ({row[1]})")
    connection.execute("INSERT INTO namespaces VALUES (?, ?, ?, ?)", (name, owner, kind, now_ms))
    return True


def owner_of(database: Database, name: str) -> str:
    """The account that owns a namespace; NamespaceNotFound."""
    row = database.row("SELECT owner FROM namespaces WHERE name = ?", (name,))
    if row is None:
        raise NamespaceNotFound(f"there is no namespace {name}")
    return row[0]


def require_owner(database: Database, name: str, acting: str) -> None:
    """Raises NotOwner unless `acting` owns the namespace, NamespaceNotFound when nobody does."""
    owner = owner_of(database, name)
    if owner != acting:
        raise NotOwner(f"the namespace {name} belongs to {owner}, not to {acting}")
