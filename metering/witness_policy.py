"""Witness policies (c2sp.org/tlog-policy): whose cosignatures a checkpoint needs before it is believed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from metering.cosignature import verify_cosignature
from metering.errors import NoteInvalid, PolicyInvalid
from metering.note import COSIGNATURE, parse_vkey, split_note

NONE = "none"
LINE_MAX = 1000
THRESHOLD = re.compile(r"[1-9][0-9]{0,3}\Z")


@dataclass(frozen=True, slots=True)
class Witness:
    """`name` is the policy's own name for it, `key_name` the one in its signature lines."""

    name: str
    key_name: str
    key_id: bytes
    key: Ed25519PublicKey
    vkey: str
    url: str | None


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """`logs`: log keys, one a line (empty: known from elsewhere). `groups`: members and how many of them it takes."""

    logs: str
    witnesses: dict[str, Witness]
    groups: dict[str, tuple[int, tuple[str, ...]]]
    quorum: str

    def check(self, note: str) -> tuple[tuple[str, ...], str]:
        """Names of the witnesses that cosigned a checkpoint, and the note without all lines but its log's.

        NoteInvalid when one of the policy's witnesses signed badly, or when they are no quorum. Lines by witnesses that
        the policy does not know are ignored.
        """
        text, signatures = split_note(note)
        by_key = {(witness.key_name, witness.key_id): witness for witness in self.witnesses.values()}
        cosigned: set[str] = set()
        for name, raw in signatures:
            witness = by_key.get((name, raw[:4]))
            if witness is not None:
                try:
                    verify_cosignature(text, raw, witness.key)
                except NoteInvalid as error:
                    raise NoteInvalid(f"{error} by {witness.name}") from error
                cosigned.add(witness.name)
        if not self._reached(self.quorum, cosigned):
            raise NoteInvalid(f"no quorum {self.quorum}: cosigned by {', '.join(sorted(cosigned)) or 'nobody'}")
        origin = text.split("\n", 1)[0]
        block = note.rpartition("\n\n")[2].splitlines(keepends=True)
        kept = [line for line, (name, raw) in zip(block, signatures, strict=True) if name == origin and len(raw) == 68]
        return tuple(sorted(cosigned)), text + "\n" + "".join(kept)

    def _reached(self, name: str, cosigned: set[str]) -> bool:
        if name == NONE or name in self.witnesses:
            return name == NONE or name in cosigned
        threshold, members = self.groups[name]
        return sum(self._reached(member, cosigned) for member in members) >= threshold


def parse_policy(text: str) -> WitnessPolicy:
    """The policy of a file's text; PolicyInvalid names the line that is wrong."""
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), start=1):
        words = [word for word in re.split(r"[ \t]+", line) if word]
        if not words or words[0].startswith("#"):
            continue
        if number > LINE_MAX:
            raise PolicyInvalid(f"more than {LINE_MAX} lines")
        try:
            reader.read(words)
        except (PolicyInvalid, NoteInvalid) as error:
            raise PolicyInvalid(f"line {number}: {error}") from error
    if reader.quorum is None:
        raise PolicyInvalid("no quorum line")
    return WitnessPolicy("\n".join(reader.logs), reader.witnesses, reader.groups, reader.quorum)


class _Reader:
    """What the lines so far have defined."""

    def __init__(self) -> None:
        self.logs: list[str] = []
        self.witnesses: dict[str, Witness] = {}
        self.groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.quorum: str | None = None
        self._members: set[str] = set()
        self._keys: set[bytes] = set()

    def read(self, words: list[str]) -> None:
        kind, arguments = words[0], words[1:]
        if kind == "log" and len(arguments) in (1, 2):
            self._new_key(parse_vkey(arguments[0])[2])
            self.logs.append(arguments[0])
        elif kind == "witness" and len(arguments) in (2, 3):
            self._witness(*arguments)
        elif kind == "group" and len(arguments) >= 3:
            self._group(arguments[0], arguments[1], tuple(arguments[2:]))
        elif kind == "quorum" and len(arguments) == 1:
            if self.quorum is not None:
                raise PolicyInvalid("a second quorum")
            self._require_defined(arguments[0] if arguments[0] != NONE else None)
            self.quorum = arguments[0]
        else:
            raise PolicyInvalid(f"not a log, witness, group or quorum line: {' '.join(words)[:80]}")

    def _witness(self, name: str, vkey: str, url: str | None = None) -> None:
        self._new_name(name)
        key_name, key_id, key = parse_vkey(vkey, COSIGNATURE)
        self._new_key(key)
        self.witnesses[name] = Witness(name, key_name, key_id, key, vkey, url)

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> None:
        self._new_name(name)
        for member in members:
            self._require_defined(member)
            if member in self._members:
                raise PolicyInvalid(f"{member} is a member twice")
            self._members.add(member)
        needed = {"any": 1, "all": len(members)}.get(threshold)
        if needed is None:
            needed = int(threshold) if THRESHOLD.match(threshold) else 0
        if not 1 <= needed <= len(members):
            raise PolicyInvalid(f"threshold {threshold} of {len(members)} members")
        self.groups[name] = (needed, members)

    def _new_name(self, name: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise PolicyInvalid(f"name {name} is taken")

    def _new_key(self, key: Ed25519PublicKey) -> None:
        raw = key.public_bytes_raw()
        if raw in self._keys:
            raise PolicyInvalid("the same public key twice")
        self._keys.add(raw)

    def _require_defined(self, name: str | None) -> None:
        if name is not None and name not in self.witnesses and name not in self.groups:
            raise PolicyInvalid(f"{name} is not defined above")
