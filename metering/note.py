"""C2SP signed notes with Ed25519, their keys, and log checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from metering.errors import NoteInvalid

ED25519 = b"\x01"
KEY_NAME = re.compile(r"[^\s+]+\Z")
SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)\Z")
SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: origin, number of leaves, 32-byte root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text: three lines."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


class NoteSigner:
    """An Ed25519 key with a name; for a log the name is its origin."""

    def __init__(self, name: str, seed: bytes) -> None:
        if not KEY_NAME.match(name):
            raise NoteInvalid(f"key name {name!r} is empty or has a space or plus")
        self.name = name
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._id = key_id(name, self._key.public_key().public_bytes_raw())

    @property
    def public_key(self) -> str:
        """`name+hex(key id)+base64(0x01 || public key)`: the form that verifiers are given."""
        encoded = encode_base64(ED25519 + self._key.public_key().public_bytes_raw())
        return f"{self.name}+{self._id.hex()}+{encoded}"

    def sign(self, text: str) -> str:
        """The signed note of `text` (which ends in a newline)."""
        return f"{text}\n— {self.name} {encode_base64(self._id + self._key.sign(text.encode()))}\n"

    @classmethod
    def load_or_create(cls, path: Path, public_path: Path, name: str) -> NoteSigner:
        """The key stored at `path` (mode 600), made on first use; `public_path` gets its public form.

        NoteInvalid when the stored key has another name: an origin never changes.
        """
        if not path.exists():
            signer = cls(name, os.urandom(32))
            text = f"PRIVATE+KEY+{name}+{signer._id.hex()}+{encode_base64(ED25519 + signer._seed)}\n"
            _write_new(path, text)
        fields = path.read_text().rstrip("\n").split("+", 4)
        if len(fields) != 5 or fields[:2] != ["PRIVATE", "KEY"]:
            raise NoteInvalid(f"{path}: not a signed-note private key")
        signer = cls(fields[2], decode_base64(fields[4])[1:])
        if signer.name != name:
            raise NoteInvalid(f"{path}: key of log {signer.name}, not of {name}")
        if not public_path.exists():
            public_path.write_text(signer.public_key + "\n")
        return signer


class NoteVerifier:
    """A set of trusted Ed25519 public keys."""

    def __init__(self, public_keys: str) -> None:
        """`public_keys`: one `name+id+key` a line, the text of log.pub (after a rotation, old keys too)."""
        self._keys: dict[tuple[str, bytes], Ed25519PublicKey] = {}
        for line in public_keys.split():
            name, _, rest = line.partition("+")
            identifier, _, encoded = rest.partition("+")
            raw = decode_base64(encoded)
            if len(raw) != 33 or raw[:1] != ED25519 or key_id(name, raw[1:]).hex() != identifier:
                raise NoteInvalid(f"public key {line!r} is not name+id+key of an Ed25519 key")
            self._keys[name, key_id(name, raw[1:])] = Ed25519PublicKey.from_public_bytes(raw[1:])
        if not self._keys:
            raise NoteInvalid("no public key")

    def open(self, note: str, *, strict: bool = False) -> str:
        """The text of a note that at least one trusted key signed and no trusted key failed; NoteInvalid otherwise.

        Unknown keys are ignored as C2SP asks, unless `strict`: then every signature line must be by a trusted key.
        """
        text, signatures = split_note(note)
        verified = 0
        for name, raw in signatures:
            key = self._keys.get((name, raw[:4]))
            if key is None:
                if strict:
                    raise NoteInvalid(f"signature by unknown key {name}+{raw[:4].hex()}")
                continue
            try:
                key.verify(raw[4:], text.encode())
            except InvalidSignature as error:
                raise NoteInvalid(f"bad signature by {name}") from error
            verified += 1
        if not verified:
            raise NoteInvalid("no signature by a trusted key")
        return text

    def open_checkpoint(self, note: str, *, strict: bool = False) -> Checkpoint:
        """The checkpoint of a good note whose origin is the name of a trusted key."""
        checkpoint = parse_checkpoint(self.open(note, strict=strict))
        if checkpoint.origin not in {name for name, _ in self._keys}:
            raise NoteInvalid(f"origin {checkpoint.origin!r} is not the name of a trusted key")
        return checkpoint


def key_id(name: str, public_key: bytes) -> bytes:
    """SHA-256(name || 0x0A || 0x01 || public key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:4]


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures (key name, key id || signature) of a note, unverified. NoteInvalid when it does not parse."""
    if any(ord(character) < 0x20 and character != "\n" for character in note):
        raise NoteInvalid("control character")
    text, separator, block = note.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NoteInvalid("no signature block")
    signatures = []
    for line in block[:-1].split("\n"):
        match = SIGNATURE_LINE.match(line)
        if not match:
            raise NoteInvalid(f"not a signature line: {line!r}")
        raw = decode_base64(match[2])
        if len(raw) < 5:
            raise NoteInvalid("signature is too short")
        signatures.append((match[1], raw))
    return text + "\n", signatures


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of a note text, unverified. Extension lines are refused: nothing of ours writes any."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] != "" or not lines[0]:
        raise NoteInvalid("checkpoint is not three lines")
    if not SIZE.match(lines[1]):
        raise NoteInvalid("tree size is not a decimal")
    root = decode_base64(lines[2])
    if len(root) != 32:
        raise NoteInvalid("root is not 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Standard base64, padded, with no spare bits set; NoteInvalid otherwise."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteInvalid(f"base64: {error}") from error
    if encode_base64(data) != text:
        raise NoteInvalid("base64: not the canonical encoding")
    return data


def _write_new(path: Path, text: str) -> None:
    """Whole or not at all: a crash must not leave half a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
