"""A copy of the log as files (the layout of c2sp.org/tlog-tiles): fetched, and verified from its entries up."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from metering import merkle
from metering.canonical import is_digest, parse_canonical
from metering.errors import CanonicalError, LogInvalid, NoteInvalid
from metering.log import TILE_WIDTH
from metering.note import Checkpoint, NoteVerifier, parse_checkpoint, split_note
from metering.tiles import tile_index_path
from metering.witness_policy import WitnessPolicy

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """A copy that holds: its head, how many entries there are of each type, who cosigned it."""

    checkpoint: Checkpoint
    entries: Mapping[str, int]
    witnesses: tuple[str, ...] = ()


def fetch_log(read: Callable[[str], bytes], directory: Path) -> Checkpoint:
    """Bring a copy up to date with `read(path)`, the log's tiles. What is there and cannot change is not fetched again.

    Nothing is verified, and the copy's `checkpoint` is left as it was: the head that was fetched is `new-checkpoint`,
    for `verify_log`. LogInvalid `checkpoint` for a head that does not parse.
    """
    note = read(CHECKPOINT)
    try:
        checkpoint = parse_checkpoint(split_note(note.decode())[0])
    except (NoteInvalid, UnicodeDecodeError) as error:
        raise LogInvalid("checkpoint", str(error)) from error
    directory.mkdir(parents=True, exist_ok=True)
    for path in tile_paths(checkpoint.size):
        file = directory / path
        if not file.exists():
            body = read(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            staged = file.with_name(file.name + ".new")
            staged.write_bytes(body)
            staged.replace(file)
    (directory / f"new-{CHECKPOINT}").write_bytes(note)
    return checkpoint


def accept_head(directory: Path, size: int) -> None:
    """Make the head that was fetched, and verified, the copy's; partial tiles of smaller trees go."""
    (directory / f"new-{CHECKPOINT}").replace(directory / CHECKPOINT)
    kept = {directory / path for path in tile_paths(size)}
    for partial in directory.glob("tile/**/*.p/*"):
        if partial not in kept:
            partial.unlink()


def tile_paths(size: int) -> Iterator[str]:
    """Every entry bundle and tile of a tree of `size` leaves; the last of each level is partial."""
    count, level = size, "entries"
    for number in range(-1, 8):
        if number >= 0:
            level, count = str(number), size >> (8 * number)
        for index in range(count // TILE_WIDTH):
            yield f"tile/{level}/{tile_index_path(index)}"
        if count % TILE_WIDTH:
            yield f"tile/{level}/{tile_index_path(count // TILE_WIDTH)}.p/{count % TILE_WIDTH}"


def verify_log(
    directory: Path,
    public_keys: str,
    *,
    saved: Iterable[str] = (),
    policy: WitnessPolicy | None = None,
    leaves: Mapping[int, bytes] | None = None,
    heads: Iterable[tuple[int, bytes]] = (),
    name: str = CHECKPOINT,
) -> VerifiedLog:
    """Recompute everything from the entries; LogInvalid names the step that failed, in this order:

    `checkpoint` (signed by the log), `witnesses` (the policy's quorum), `entries` (well-formed, none missing), `tiles`
    (each byte of each tile), `root`, then `consistency`: `saved` checkpoints, signed, and `heads` (size, root) are
    earlier states of this very log; and `receipts`: hash `leaves` are where they should be.
    """
    checkpoint, witnesses = _open(_read(directory, name, "checkpoint"), public_keys, policy)
    heads = list(heads)
    for note in saved:
        earlier = _open(note.encode(), public_keys, None)[0]
        if earlier.origin != checkpoint.origin:
            raise LogInvalid("consistency", f"{earlier.origin} is another log than {checkpoint.origin}")
        heads.append((earlier.size, earlier.root))
    for size, _ in heads:
        if size > checkpoint.size:
            raise LogInvalid("consistency", f"the log has shrunk from {size} leaves to {checkpoint.size}")
    wanted = dict(leaves or {})
    roots = {size: b"" for size, _ in heads}
    tree, kinds = _Tree(directory), dict[str, int]()
    for index, entry in enumerate(_entries(directory, checkpoint.size)):
        if index in roots:
            roots[index] = tree.root(index)
        kind = _kind(index, entry)
        kinds[kind] = kinds.get(kind, 0) + 1
        leaf = merkle.leaf_hash(entry)
        if wanted.pop(index, leaf) != leaf:
            raise LogInvalid("receipts", f"leaf {index} of the log is another entry")
        tree.push(leaf)
    roots[checkpoint.size] = tree.finish(checkpoint.size)
    if roots[checkpoint.size] != checkpoint.root:
        raise LogInvalid("root", f"the entries lead to another root than the signed one of {checkpoint.size} leaves")
    for size, root in heads:
        if roots[size] != root:
            raise LogInvalid("consistency", f"the log had another root when it had {size} leaves")
    if wanted:
        raise LogInvalid("receipts", f"leaf {min(wanted)} is beyond the log's {checkpoint.size}")
    return VerifiedLog(checkpoint, kinds, witnesses)


class _Tree:
    """The tree over the leaves pushed so far: a row of unfinished hashes a level, each full row checked and folded."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: list[list[bytes]] = []
        self._done: list[int] = []

    def push(self, value: bytes, level: int = 0) -> None:
        if level == len(self._rows):
            self._rows.append([])
            self._done.append(0)
        row = self._rows[level]
        row.append(value)
        if len(row) == TILE_WIDTH:
            self._check(f"tile/{level}/{tile_index_path(self._done[level])}", row)
            self._rows[level] = []
            self._done[level] += 1
            self.push(merkle.tree_root(merkle.MemoryNodes(row), TILE_WIDTH), level + 1)

    def root(self, size: int) -> bytes:
        """Of all that was pushed."""
        return merkle.tree_root(self, size)

    def node(self, level: int, index: int) -> bytes:
        """See merkle.Nodes; asked for the right edge only, which the unfinished rows hold."""
        tile_level, height = divmod(level, 8)
        row = self._rows[tile_level]
        start = (index << height) - self._done[tile_level] * TILE_WIDTH
        return merkle.tree_root(merkle.MemoryNodes(row[start : start + (1 << height)]), 1 << height)

    def finish(self, size: int) -> bytes:
        """Check the unfinished rows against the partial tiles; the root."""
        for level, row in enumerate(self._rows):
            if row:
                self._check(f"tile/{level}/{tile_index_path(self._done[level])}.p/{len(row)}", row)
        return self.root(size)

    def _check(self, path: str, row: list[bytes]) -> None:
        body = _read(self._directory, path, "tiles")
        if body != b"".join(row):
            raise LogInvalid("tiles", f"{path} is not what the entries hash to ({len(body)} of {32 * len(row)} bytes)")


def _open(note: bytes, public_keys: str, policy: WitnessPolicy | None) -> tuple[Checkpoint, tuple[str, ...]]:
    witnesses: tuple[str, ...] = ()
    step = "witnesses" if policy else "checkpoint"
    try:
        text = note.decode()
        if policy is not None:
            witnesses, text = policy.check(text)
        step = "checkpoint"
        return NoteVerifier(public_keys).open_checkpoint(text), witnesses
    except (NoteInvalid, UnicodeDecodeError) as error:
        raise LogInvalid(step, str(error)) from error


def _entries(directory: Path, size: int) -> Iterator[bytes]:
    """The log's entries in order, out of their bundles (each behind its big-endian uint16 length)."""
    for start in range(0, size, TILE_WIDTH):
        width = min(TILE_WIDTH, size - start)
        path = f"tile/entries/{tile_index_path(start // TILE_WIDTH)}" + (f".p/{width}" if width < TILE_WIDTH else "")
        body, at = _read(directory, path, "entries"), 0
        for index in range(width):
            if at + 2 > len(body):
                raise LogInvalid("entries", f"{path} ends before entry {start + index}")
            (length,) = struct.unpack_from(">H", body, at)
            at += 2 + length
            yield body[at - length : at]
        if at != len(body):
            raise LogInvalid("entries", f"{path} has {len(body)} bytes, its entries {at}")


def _kind(index: int, entry: bytes) -> str:
    """An entry's type; LogInvalid when it is not the canonical {"digest", "type"}."""
    try:
        value = parse_canonical(entry)
        if value.keys() == {"digest", "type"} and is_digest(value["digest"]) and isinstance(value["type"], str):
            return value["type"]
    except (CanonicalError, AttributeError):
        pass
    raise LogInvalid("entries", f"entry {index} is not a digest and its type")


def _read(directory: Path, path: str, step: str) -> bytes:
    try:
        return (directory / path).read_bytes()
    except OSError as error:
        raise LogInvalid(step, f"{path}: {error.strerror}") from error
