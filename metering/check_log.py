"""The invariants of the transparency log, for metering.check: (name, detail) of each that is broken."""

from __future__ import annotations

from collections.abc import Iterator

from metering import merkle
from metering.canonical import digest
from metering.check_usage import Broken, check_usage
from metering.config import MeteringConfig
from metering.errors import CanonicalError, NoteInvalid
from metering.log import leaf_bytes
from metering.log_key import named_keys
from metering.note import NoteVerifier
from metering.store import Connection


def check_log(connection: Connection, config: MeteringConfig) -> Iterator[Broken]:
    """The root recomputed from all leaves is the signed one; every leaf has its document, unchanged, or its receipt;
    log.pub has the keys that the documents name."""
    leaves = connection.execute("SELECT leaf_index, kind, digest FROM log_leaves ORDER BY leaf_index")
    yield from _check_head(connection, config, leaves)
    yield from _check_documents(connection)
    yield from _check_keys(connection, config)
    yield from check_usage(connection, [row[2] for row in leaves])


def _check_head(connection: Connection, config: MeteringConfig, leaves: list[tuple[int, str, str]]) -> Iterator[Broken]:
    if [row[0] for row in leaves] != list(range(len(leaves))):
        yield "log_leaf_missing", "leaf indexes have a gap"
    rows = connection.execute("SELECT note FROM log_checkpoints ORDER BY size DESC LIMIT 1")
    if not rows:
        if leaves:
            yield "log_not_signed", f"{len(leaves)} leaves and no checkpoint"
        return
    nodes = merkle.MemoryNodes([merkle.leaf_hash(leaf_bytes(kind, name)) for _, kind, name in leaves])
    try:
        checkpoint = NoteVerifier(config.log_public_key_path.read_text()).open_checkpoint(rows[0][0])
    except (NoteInvalid, OSError) as error:
        yield "checkpoint_invalid", str(error)
        return
    if checkpoint.size != len(leaves) or checkpoint.root != merkle.tree_root(nodes, len(leaves)):
        yield "log_root_differs", f"checkpoint of {checkpoint.size} leaves, log of {len(leaves)}"


def _check_documents(connection: Connection) -> Iterator[Broken]:
    """A document is what its digest names; whatever the log names, but usage, is there."""
    for name, kind, body in connection.execute("SELECT digest, kind, body FROM documents"):
        if digest(bytes(body)) != name:
            yield "document_changed", f"{kind} {name}"
    rows = connection.execute(
        "SELECT l.leaf_index, l.kind, l.digest FROM log_leaves l LEFT JOIN documents d ON d.digest = l.digest"
        " WHERE l.kind <> 'usage' AND d.digest IS NULL ORDER BY l.leaf_index"
    )
    for index, kind, name in rows:
        yield "document_missing", f"{kind} {name} of leaf {index}"


def _check_keys(connection: Connection, config: MeteringConfig) -> Iterator[Broken]:
    """While no key was ever retired no document names one, and the head is the test of log.pub."""
    try:
        named = named_keys(connection)
        published = config.log_public_key_path.read_text()
    except (CanonicalError, KeyError, OSError) as error:
        yield "log_keys_differ", f"{type(error).__name__}: {error}"
        return
    if named is not None and published != named:
        lines, expected = published.splitlines(), named.splitlines()
        line = next((n for n, (a, b) in enumerate(zip(lines, expected, strict=False), 1) if a != b), 0)
        where = f"line {line}" if line else f"{len(lines)} lines"
        yield "log_keys_differ", f"log.pub, {where}; the log's documents name {len(expected)} keys"
