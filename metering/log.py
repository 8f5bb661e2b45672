"""The transparency log as stored in the ledger's database (docs/formats/checkpoint.md)."""

from __future__ import annotations

import time

from metering import merkle
from metering.errors import LogKeyRetired, NotIncluded
from metering.ledger import Ledger
from metering.note import Checkpoint, NoteSigner, encode_base64, parse_checkpoint, split_note
from metering.store import Connection

TILE_WIDTH = 256
HASH_BYTES = 32
POLL_SECONDS = 0.02


def leaf_bytes(kind: str, digest: str) -> bytes:
    """The entry that is hashed into the tree: canonical JSON {"digest", "type"}. Bodies stay outside the log."""
    return b'{"digest":"%b","type":"%b"}' % (digest.encode(), kind.encode())  # neither ever needs an escape


class LogTree:
    """The tree's hashes, read from and appended to the tiles of one transaction (C2SP tlog-tiles layout, height 8).

    Only the rightmost tile of each level ever changes; a full tile's root is a hash of the level above.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._dirty: set[tuple[int, int]] = set()
        rows = connection.execute("SELECT max(leaf_index) FROM log_leaves")
        self.size = 0 if rows[0][0] is None else rows[0][0] + 1

    def append(self, entries: list[tuple[str, str]]) -> int:
        """Add (kind, digest) entries; the leaf index of the first."""
        first = self.size
        rows = [(first + i, kind, digest) for i, (kind, digest) in enumerate(entries)]
        self._connection.insert("log_leaves", "leaf_index, kind, digest", rows)
        self._extend(0, first, [merkle.leaf_hash(leaf_bytes(kind, digest)) for kind, digest in entries])
        self.size += len(entries)
        self._connection.executemany(
            "INSERT INTO log_tiles (level, tile_index, hashes) VALUES (?, ?, ?)"
            " ON CONFLICT (level, tile_index) DO UPDATE SET hashes = excluded.hashes",
            [(*key, self._tiles[key]) for key in sorted(self._dirty)],
        )
        self._dirty.clear()
        return first

    def root(self, size: int) -> bytes:
        return merkle.tree_root(self, size)

    def node(self, level: int, index: int) -> bytes:
        """See merkle.Nodes."""
        tile_level, height = divmod(level, 8)
        first = index << height
        hashes = self.tile(tile_level, first // TILE_WIDTH)
        start = first % TILE_WIDTH
        row = [hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(start, start + (1 << height))]
        return _fold(row)

    def tile(self, level: int, index: int) -> bytes:
        """The hashes that the tile holds so far; empty when it does not exist."""
        key = (level, index)
        if key not in self._tiles:
            rows = self._connection.execute("SELECT hashes FROM log_tiles WHERE level = ? AND tile_index = ?", key)
            self._tiles[key] = bytes(rows[0][0]) if rows else b""
        return self._tiles[key]

    def _extend(self, level: int, start: int, hashes: list[bytes]) -> None:
        """Add hashes of a level from index `start` on; a tile that they fill is a hash of the level above."""
        first_tile, full = start // TILE_WIDTH, []
        while hashes:
            key, room = (level, start // TILE_WIDTH), TILE_WIDTH - start % TILE_WIDTH
            part, hashes = hashes[:room], hashes[room:]
            self._tiles[key] = self.tile(*key) + b"".join(part)
            self._dirty.add(key)
            start += len(part)
            if len(part) == room:
                full.append(_fold_tile(self._tiles[key]))
        if full:
            self._extend(level + 1, first_tile, full)


def sign_checkpoint(
    connection: Connection, tree: LogTree, signer: NoteSigner, time_us: int, replaces: NoteSigner | None = None
) -> Checkpoint:
    """Sign the head of the tree and store it in the same transaction as its leaves.

    LogKeyRetired when the head before was signed by another key than `signer` or the one it `replaces`: this one was
    read before the key was rotated.
    """
    last = connection.execute("SELECT note FROM log_checkpoints ORDER BY size DESC LIMIT 1")
    if last and not (replaces or signer).signed(last[0][0]):
        raise LogKeyRetired(f"{signer.public_key} does not sign the log any more")
    checkpoint = Checkpoint(signer.name, tree.size, tree.root(tree.size))
    connection.execute(
        "INSERT INTO log_checkpoints (size, note, time_us) VALUES (?, ?, ?) ON CONFLICT (size) DO NOTHING",
        (tree.size, signer.sign(checkpoint.text()), time_us),
    )
    return checkpoint


def append_entry(ledger: Ledger, kind: str, body: bytes) -> str:
    """Submit a public entry (Ledger.put_document); the settler sequences it. Returns its digest at once."""
    return ledger.put_document(kind, body)


def wait_included(ledger: Ledger, digest: str, timeout_seconds: float = 10.0) -> int:
    """Leaf index of the entry once a signed checkpoint covers it; NotIncluded after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        with ledger.store.read() as connection:
            index = find_leaf(connection, digest)
        if index is not None:
            return index  # leaves and the checkpoint that covers them are one transaction
        if time.monotonic() >= deadline:
            raise NotIncluded(f"{digest} is not in the log after {timeout_seconds} s; is the settler running?")
        time.sleep(POLL_SECONDS)


def find_leaf(connection: Connection, digest: str) -> int | None:
    """The first leaf index of that public entry's digest. A usage leaf is found through its request."""
    rows = connection.execute("SELECT min(leaf_index) FROM log_leaves WHERE digest = ? AND kind <> 'usage'", (digest,))
    return rows[0][0]


def read_checkpoint(connection: Connection) -> str:
    rows = connection.execute("SELECT note FROM log_checkpoints ORDER BY size DESC LIMIT 1")
    if not rows:
        raise NotIncluded("the log is empty")
    return rows[0][0]


def latest_checkpoint(ledger: Ledger) -> str:
    """Text of the newest signed checkpoint (C2SP tlog-checkpoint); NotIncluded while there is none."""
    with ledger.store.read() as connection:
        return read_checkpoint(connection)


def inclusion_proof_text(ledger: Ledger, digest: str) -> str:
    """C2SP tlog-proof of the entry under the newest checkpoint; NotIncluded while there is none."""
    with ledger.store.read() as connection:
        index = find_leaf(connection, digest)
        if index is None:
            raise NotIncluded(f"{digest} is not in the log")
        return proof_text(connection, index)


def proof_text(connection: Connection, index: int, note: str | None = None) -> str:
    """C2SP tlog-proof of leaf `index` under a checkpoint of the log, the newest by default."""
    note = note or read_checkpoint(connection)
    size = parse_checkpoint(split_note(note)[0]).size
    path = merkle.inclusion_proof(LogTree(connection), index, size)
    lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *map(encode_base64, path)]
    return "\n".join(lines) + "\n\n" + note


def consistency_proof(ledger: Ledger, old_size: int, new_size: int) -> list[bytes]:
    """RFC 6962 section 2.1.2 proof that the tree of old_size is a prefix of the tree of new_size."""
    with ledger.store.read() as connection:
        tree = LogTree(connection)
        if new_size > tree.size:
            raise ValueError(f"the log has {tree.size} leaves, not {new_size}")
        return merkle.consistency_proof(tree, old_size, new_size)


def _fold_tile(hashes: bytes) -> bytes:
    return _fold([hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)])


def _fold(row: list[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    while len(row) > 1:
        row = [merkle.node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]
