"""Cosignatures of checkpoints by witnesses (c2sp.org/tlog-cosignature, Ed25519): made, verified, stored."""

from __future__ import annotations

import struct
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from metering.errors import NoteInvalid
from metering.note import COSIGNATURE, NoteSigner, encode_base64, key_id
from metering.store import Connection

TIME_BYTES, SIGNATURE_BYTES = 8, 64


class Cosigner:
    """A witness's key."""

    def __init__(self, signer: NoteSigner) -> None:
        self._signer = signer
        self._id = key_id(signer.name, signer.public_bytes, COSIGNATURE)

    @classmethod
    def load_or_create(cls, path: Path, name: str) -> Cosigner:
        """The key stored at `path` (mode 600), made on first use; NoteInvalid when it has another name."""
        return cls(NoteSigner.load(path, name) if path.exists() else NoteSigner.create(path, name))

    @property
    def public_key(self) -> str:
        """`name+hex(key id)+base64(0x04 || public key)`: the form that policies name."""
        return f"{self._signer.name}+{self._id.hex()}+{encode_base64(COSIGNATURE + self._signer.public_bytes)}"

    def cosign(self, text: str, time_seconds: int) -> str:
        """The signature line over a checkpoint's text: "I saw this tree, and none that contradicts it"."""
        raw = self._id + struct.pack(">Q", time_seconds) + self._signer.sign_bytes(signed_message(text, time_seconds))
        return f"— {self._signer.name} {encode_base64(raw)}\n"


def signed_message(text: str, time_seconds: int) -> bytes:
    """What a witness signs of a checkpoint's text at a POSIX time."""
    return f"cosignature/v1\ntime {time_seconds}\n{text}".encode()


def verify_cosignature(text: str, raw: bytes, key: Ed25519PublicKey) -> int:
    """The POSIX time of a good cosignature (key id || time || signature); NoteInvalid otherwise."""
    if len(raw) != 4 + TIME_BYTES + SIGNATURE_BYTES:
        raise NoteInvalid(f"a cosignature of {len(raw)} bytes")
    time_seconds = struct.unpack(">Q", raw[4 : 4 + TIME_BYTES])[0]
    try:
        key.verify(raw[4 + TIME_BYTES :], signed_message(text, time_seconds))
    except InvalidSignature as error:
        raise NoteInvalid("bad cosignature") from error
    return time_seconds


def store_cosignature(connection: Connection, size: int, witness: str, line: str) -> None:
    """Keep a witness's line for the checkpoint of a size; a newer one replaces it."""
    connection.execute(
        "INSERT INTO log_cosignatures (size, witness, line) VALUES (?, ?, ?)"
        " ON CONFLICT (size, witness) DO UPDATE SET line = excluded.line",
        (size, witness, line),
    )


def with_cosignatures(connection: Connection, size: int, note: str) -> str:
    """The signed checkpoint of a size, with the cosignatures that are stored for it."""
    rows = connection.execute("SELECT line FROM log_cosignatures WHERE size = ? ORDER BY witness", (size,))
    return note + "".join(row[0] for row in rows)


def read_witnessed(connection: Connection, leaf_index: int) -> str | None:
    """The newest checkpoint with cosignatures that covers a leaf, if there is one."""
    rows = connection.execute(
        "SELECT c.size, c.note FROM log_checkpoints c WHERE c.size ="
        " (SELECT max(size) FROM log_cosignatures) AND c.size > ?",
        (leaf_index,),
    )
    return with_cosignatures(connection, *rows[0]) if rows else None
