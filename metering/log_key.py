"""The log's signing key: found, made, and rotated without breaking what was signed (docs/formats/checkpoint.md)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metering.canonical import canonical_bytes, digest, parse_canonical
from metering.config import MeteringConfig
from metering.ledger import Ledger, now_us
from metering.log import LogTree, sign_checkpoint
from metering.note import NoteSigner, encode_base64, handover_text
from metering.store import Connection
from metering.windows import last_settled_us

KIND = "log_key"


def load_signer(config: MeteringConfig, ledger: Ledger) -> NoteSigner:
    """The key that signs the log, made on first use. Finishes a rotation that a crash cut short."""
    with _locked(config):
        return _load(config, ledger)


def is_waiting(config: MeteringConfig) -> bool:
    """True while a key has been made and is not in its place: a rotation is under way, or was cut short."""
    return _next_path(config).exists()


def rotate_key(config: MeteringConfig, ledger: Ledger) -> dict[str, Any]:
    """Retire the log's key at its present tree size; the document that says so, which the retired key signs.

    One transaction appends the document and signs the head that contains it with the new key, so that two keys never
    sign one size. A settler that runs reads the new key before its next batch.
    """
    with _locked(config):
        return _rotate(config, ledger)


def _rotate(config: MeteringConfig, ledger: Ledger) -> dict[str, Any]:
    old = _load(config, ledger)
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
        time_us = max(now_us(), last_settled_us(connection))  # heads are in the order of time: see receipts_root
        sign_checkpoint(connection, tree, new, time_us, replaces=old)
        keys = key_list(connection, new.public_key)
    _put_in_place(config, keys)
    return {**document, "digest": name, "leaf_index": index}


def key_list(connection: Connection, current: str) -> str:
    """The text of log.pub: the key in use, and below it each retired one with its last tree size and signature."""
    lines = [f"{one['previous']} until {one['until']} {one['signature']}" for one in _retired(connection)]
    return "\n".join([current, *lines]) + "\n"


def named_keys(connection: Connection) -> str | None:
    """What log.pub should say by the log's own documents; None while no key was retired, and none is named."""
    retired = _retired(connection)
    return key_list(connection, retired[0]["key"]) if retired else None


def _retired(connection: Connection) -> list[dict[str, Any]]:
    """The documents of all rotations, newest first."""
    rows = connection.execute("SELECT body FROM documents WHERE kind = ?", (KIND,))
    return sorted((parse_canonical(bytes(row[0])) for row in rows), key=lambda one: -one["until"])


def _load(config: MeteringConfig, ledger: Ledger) -> NoteSigner:
    path = _next_path(config)
    if path.exists():
        following = NoteSigner.load(path, config.log_origin)
        with ledger.store.read() as connection:
            head = connection.execute("SELECT note FROM log_checkpoints ORDER BY size DESC LIMIT 1")
            if head and following.signed(head[0][0]):
                _put_in_place(config, key_list(connection, following.public_key))
    return NoteSigner.load_or_create(config.log_key_path, config.log_public_key_path, config.log_origin)


@contextmanager
def _locked(config: MeteringConfig) -> Iterator[None]:
    """Settlers that start together make one key, and nobody puts a key in place beside another who does."""
    config.data_dir.mkdir(parents=True, exist_ok=True)
    with (config.data_dir / "log.key.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _next_path(config: MeteringConfig) -> Path:
    return config.log_key_path.with_name(config.log_key_path.name + ".next")


def _put_in_place(config: MeteringConfig, keys: str) -> None:
    """The list first: whoever sees what the new key signed finds it in the list."""
    staged = config.log_public_key_path.with_name(config.log_public_key_path.name + ".new")
    staged.write_text(keys)
    os.replace(staged, config.log_public_key_path)
    os.replace(_next_path(config), config.log_key_path)
