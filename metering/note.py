"""C2SP signed notes with Ed25519, their keys, and log checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

A list of a log's keys is a line for each, the one in use first; a retired one says until which tree size it signed, and
signs the one above it (docs/formats/checkpoint.md).
"""

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
COSIGNATURE = b"\x04"
KEY_NAME = re.compile(r"[^\s+]+\Z")
SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)\Z")
SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
RETIRED = re.compile(r"(\S+) until (0|[1-9][0-9]{0,18}) (\S+)\Z")


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
        self._id = key_id(name, self.public_bytes)

    @property
    def public_bytes(self) -> bytes:
        """The 32 bytes of the public key."""
        return self._key.public_key().public_bytes_raw()

    @property
    def public_key(self) -> str:
        """`name+hex(key id)+base64(0x01 || public key)`: the form that verifiers are given."""
        return f"{self.name}+{self._id.hex()}+{encode_base64(ED25519 + self.public_bytes)}"

    def sign(self, text: str) -> str:
        """The signed note of `text` (which ends in a newline)."""
        return f"{text}\n— {self.name} {encode_base64(self._id + self._key.sign(text.encode()))}\n"

    def sign_bytes(self, data: bytes) -> bytes:
        """The bare Ed25519 signature."""
        return self._key.sign(data)

    def signed(self, note: str) -> bool:
        """True when a signature line of the note bears this key's name and id (it is not verified)."""
        return any(name == self.name and raw[:4] == self._id for name, raw in split_note(note)[1])

    @classmethod
    def create(cls, path: Path, name: str) -> NoteSigner:
        """A new key, stored at `path` (mode 600)."""
        signer = cls(name, os.urandom(32))
        _write_new(path, f"PRIVATE+KEY+{name}+{signer._id.hex()}+{encode_base64(ED25519 + signer._seed)}\n")
        return signer

    @classmethod
    def load(cls, path: Path, name: str) -> NoteSigner:
        """The key stored at `path`; NoteInvalid when it is none, or has another name: an origin never changes."""
        fields = path.read_text().rstrip("\n").split("+", 4)
        if len(fields) != 5 or fields[:2] != ["PRIVATE", "KEY"]:
            raise NoteInvalid(f"{path}: not a signed-note private key")
        signer = cls(fields[2], decode_base64(fields[4])[1:])
        if signer.name != name:
            raise NoteInvalid(f"{path}: key of log {signer.name}, not of {name}")
        return signer

    @classmethod
    def load_or_create(cls, path: Path, public_path: Path, name: str) -> NoteSigner:
        """The key stored at `path`, made on first use; `public_path` gets its public form where there is none."""
        signer = cls.load(path, name) if path.exists() else cls.create(path, name)
        if not public_path.exists():
            public_path.write_text(signer.public_key + "\n")
        return signer


@dataclass(frozen=True, slots=True)
class LogKey:
    """A trusted key: it signs trees of more than `above` leaves, and of at most `until` when it is retired."""

    name: str
    key: Ed25519PublicKey
    above: int = -1
    until: int | None = None

    def signs(self, size: int) -> bool:
        return self.above < size and (self.until is None or size <= self.until)


class NoteVerifier:
    """A set of trusted Ed25519 public keys."""

    def __init__(self, public_keys: str) -> None:
        """`public_keys`: the text of log.pub. NoteInvalid when a key is malformed or did not sign its successor."""
        self._keys: dict[tuple[str, bytes], LogKey] = {}
        newer = ""
        for line in filter(None, (line.strip() for line in public_keys.split("\n"))):
            retired = RETIRED.match(line)
            vkey = retired[1] if retired else line
            name, identifier, key = parse_vkey(vkey)
            self._keys[name, identifier] = LogKey(name, key, until=int(retired[2]) if retired else None)
            if retired:
                self._hand_over(vkey, int(retired[2]), decode_base64(retired[3]), newer)
            newer = vkey
        if not self._keys:
            raise NoteInvalid("no public key")

    def _hand_over(self, vkey: str, until: int, signature: bytes, newer: str) -> None:
        """Check that a retired key signed the one above it in the list, which begins where it ends."""
        if not newer:
            raise NoteInvalid("the newest key is retired")
        try:
            parse_vkey(vkey)[2].verify(signature, handover_text(vkey, until, newer))
        except InvalidSignature as error:
            raise NoteInvalid(f"key {vkey} did not sign its successor") from error
        name, identifier, key = parse_vkey(newer)
        last = self._keys[name, identifier].until
        if last is not None and last < until:
            raise NoteInvalid(f"key {newer} was retired before the one that it follows")
        self._keys[name, identifier] = LogKey(name, key, until, last)

    def knows(self, origin: str) -> bool:
        """True when one of the keys has this name."""
        return any(name == origin for name, _ in self._keys)

    def open(self, note: str, *, strict: bool = False) -> str:
        """The text of a note that at least one trusted key signed and no trusted key failed; NoteInvalid otherwise.

        Unknown keys are ignored as C2SP asks, unless `strict`: then every signature line must be by a trusted key.
        """
        return self._open(note, strict)[0]

    def open_checkpoint(self, note: str, *, strict: bool = False) -> Checkpoint:
        """The checkpoint of a good note by a trusted key of its origin that signs trees of its size."""
        text, signers = self._open(note, strict)
        checkpoint = parse_checkpoint(text)
        keys = [key for key in signers if key.name == checkpoint.origin]
        if not keys:
            raise NoteInvalid(f"origin {checkpoint.origin!r} is not the name of a trusted key")
        if not any(key.signs(checkpoint.size) for key in keys):
            until = keys[0].until
            bounds = f"more than {keys[0].above} leaves" + (f" and at most {until}" if until is not None else "")
            raise NoteInvalid(f"signed by a key for trees of {bounds}, not of {checkpoint.size}")
        return checkpoint

    def _open(self, note: str, strict: bool) -> tuple[str, list[LogKey]]:
        text, signatures = split_note(note)
        signers = []
        for name, raw in signatures:
            trusted = self._keys.get((name, raw[:4]))
            if trusted is None:
                if strict:
                    raise NoteInvalid(f"signature by unknown key {name}+{raw[:4].hex()}")
                continue
            try:
                trusted.key.verify(raw[4:], text.encode())
            except InvalidSignature as error:
                raise NoteInvalid(f"bad signature by {name}") from error
            signers.append(trusted)
        if not signers:
            raise NoteInvalid("no signature by a trusted key")
        return text, signers


def handover_text(vkey: str, until: int, newer: str) -> bytes:
    """What a key signs when it is retired at a tree size, for the key that follows it."""
    return f"org.openledger.log-key.v1\n{vkey}\n{until}\n{newer}\n".encode()


def parse_vkey(text: str, algorithm: bytes = ED25519) -> tuple[str, bytes, Ed25519PublicKey]:
    """Name, key id and key of `name+hex(key id)+base64(algorithm || key)`; NoteInvalid for anything else."""
    name, _, rest = text.partition("+")
    identifier, _, encoded = rest.partition("+")
    raw = decode_base64(encoded)
    if len(raw) != 33 or raw[:1] != algorithm or key_id(name, raw[1:], algorithm).hex() != identifier:
        raise NoteInvalid(f"public key {text!r} is not name+id+key of an Ed25519 key of type {algorithm.hex()}")
    return name, bytes.fromhex(identifier), Ed25519PublicKey.from_public_bytes(raw[1:])


def key_id(name: str, public_key: bytes, algorithm: bytes = ED25519) -> bytes:
    """SHA-256(name || 0x0A || algorithm || public key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + algorithm + public_key).digest()[:4]


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
