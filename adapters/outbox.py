"""Documents, kept in the transaction that made them until the caller has them in its log."""

import apsw

from adapters.database import Database
from adapters.document import Document


def record(connection: apsw.Connection, document: Document) -> Document:
    """Keep a document within the caller's transaction; the same bytes are kept once."""
    connection.execute(
        "INSERT INTO documents (digest, kind, content) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING",
        (document.digest, document.kind, document.content),
    )
    return document


def read(database: Database, digest: str) -> Document:
    """A kept document; KeyError when there is none."""
    row = database.row("SELECT kind, digest, content FROM documents WHERE digest = ?", (digest,))
    if row is None:
        raise KeyError(digest)
    return Document(*row)


def documents_after(database: Database, sequence: int, limit: int = 1000) -> list[tuple[int, Document]]:
    """(sequence, document) pairs with a higher sequence number, in the order in which they came to be.

    A caller that logs documents remembers the last sequence it logged; after a crash it asks from there, and appends
    what its log lacks.
    """
    rows = database.rows(
        "SELECT sequence, kind, digest, content FROM documents WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    return [(row[0], Document(*row[1:])) for row in rows]
