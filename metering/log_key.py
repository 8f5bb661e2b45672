"""The log's signing key: found, made, and rotated without breaking what was signed (docs/formats/checkpoint.md)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from metering.canonical import canonical_bytes, digest, parse_canonical
from metering.config import MeteringConfig
from metering.ledger import Ledger, now_us
from metering.log import LogTree, sign_checkpoint
from metering.note import NoteSigner, encode_base64, handover_text
from metering.store import Connection

KIND = "log_key"


def load_signer(config: MeteringConfig, ledger: Ledger) -> NoteSigner:
    """The key that signs the log, made on first use. Finishes a rotation that a crash cut short."""
    path = _next_path(config)
    if path.exists():
        following = NoteSigner.load(path, config.log_origin)
        with ledger.store.read() as connection:
            head = connection.execute("SELECT note FROM log_checkpoints ORDER BY size DESC LIMIT 1")
            if head and following.signed(head[0][0]):
                _put_in_place(config, key_list(connection, following))
    return NoteSigner.load_or_create(config.log_key_path, config.log_public_key_path, config.log_origin)


def rotate_key(config: MeteringConfig, ledger: Ledger) -> dict[str, Any]:
    """Retire the log's key at its present tree size; the document that says so, which the retired key signs.

    One transaction appends the document and signs the head that contains it with the new key, so that two keys never
    sign one size. A settler that runs reads the new key before its next batch.
    """
    old = load_signer(config, ledger)
    path = _next_path(config)
    path.unlink(missing_ok=True)
    new = NoteSigner.create(path, config.log_origin)
    with ledger.store.write() as connection:
        connection.take_turn()
        tree = LogTree(connection)
        signature = encode_base64(old.sign_bytes(handover_text(old.public_key, tree.size, new.public_key)))
        document = {
            "type": KIND,
            "previous": old.public_key,
            "until": tree.size,
            "key": new.public_key,
            "signature": signature,
        }
        body = canonical_bytes(document)
        name = digest(body)
        connection.execute("INSERT INTO documents (digest, kind, body) VALUES (?, ?, ?)", (name, KIND, body))
        index = tree.append([(KIND, name)])
        sign_checkpoint(connection, tree, new, now_us(), replaces=old)
        keys = key_list(connection, new)
    _put_in_place(config, keys)
    return {**document, "digest": name, "leaf_index": index}


def key_list(connection: Connection, current: NoteSigner) -> str:
    """The text of log.pub: the key in use, and below it each retired one with its last tree size and signature."""
    rows = connection.execute("SELECT body FROM documents WHERE kind = ?", (KIND,))
    retired = sorted((parse_canonical(bytes(row[0])) for row in rows), key=lambda one: -one["until"])
    lines = [f"{one['previous']} until {one['until']} {one['signature']}" for one in retired]
    return "\n".join([current.public_key, *lines]) + "\n"


def _next_path(config: MeteringConfig) -> Path:
    return config.log_key_path.with_name(config.log_key_path.name + ".next")


def _put_in_place(config: MeteringConfig, keys: str) -> None:
    """The list first: whoever sees what the new key signed finds it in the list."""
    staged = config.log_public_key_path.with_name(config.log_public_key_path.name + ".new")
    staged.write_text(keys)
    os.replace(staged, config.log_public_key_path)
    os.replace(_next_path(config), config.log_key_path)
