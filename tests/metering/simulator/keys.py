"""Which key may sign which tree: read from the log's documents, by a reference that shares no code with metering."""

from __future__ import annotations

import base64
import json

from metering.config import MeteringConfig
from metering.store import Connection
from tests.metering.simulator.law import require
from tests.metering.simulator.reference import head_of, is_signed, tree_root


class KeyWatch:
    """Follows the log's keys and heads from step to step."""

    def __init__(self, config: MeteringConfig) -> None:
        self._file = config.log_public_key_path
        self._keys = [(self._file.read_text().strip(), 0)]  # each with the size from which on it signs, and alone
        self._retired: list[str] = []  # their lines of log.pub, newest first
        self._head = 0

    def look(self, connection: Connection, leaves: list[tuple[str, str]]) -> None:
        """keys_hand_over, one_key_signs, leaves_are_signed, root_is_signed."""
        self._look_keys(connection, leaves)
        heads = connection.execute("SELECT size, note FROM log_checkpoints WHERE size > ? ORDER BY size", (self._head,))
        for size, note in heads:
            key = next(key for key, above in reversed(self._keys) if size > above)
            head = head_of(note, key)
            require(head is not None and head[0] == size, "one_key_signs", (size, key, note))
            if size == len(leaves) and head:
                hashed = [f'{{"digest":"{digest}","type":"{kind}"}}'.encode() for kind, digest in leaves]
                require(head[1] == tree_root(hashed), "root_is_signed", base64.b64encode(head[1]))
            self._head = size
        require(self._head == len(leaves), "leaves_are_signed", (self._head, len(leaves)))

    def published(self) -> str:
        """What log.pub says, or will say once a rotation that was cut short is finished."""
        return "\n".join([self._keys[-1][0], *self._retired]) + "\n"

    def look_at_end(self) -> None:
        """keys_are_published: log.pub is what the documents say."""
        require(self._file.read_text() == self.published(), "keys_are_published", self.published())

    def _look_keys(self, connection: Connection, leaves: list[tuple[str, str]]) -> None:
        entries = [(index, digest) for index, (kind, digest) in enumerate(leaves) if kind == "log_key"]
        for index, digest in entries[len(self._retired) :]:
            body = json.loads(bytes(connection.execute("SELECT body FROM documents WHERE digest = ?", (digest,))[0][0]))
            key, last = body["previous"], self._keys[-1][0]
            text = f"org.openledger.log-key.v1\n{key}\n{index}\n{body['key']}\n"
            signed = (key, body["until"]) == (last, index) and is_signed(key, text, base64.b64decode(body["signature"]))
            require(signed, "keys_hand_over", body)
            self._keys.append((body["key"], index))
            self._retired.insert(0, f"{key} until {index} {body['signature']}")
