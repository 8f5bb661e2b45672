"""RFC 6962 section 2.1 Merkle trees: roots, inclusion and consistency proofs, and their verification (RFC 9162 2.1).

Trees are read through `Nodes`: the hashes of complete subtrees. Hashes are 32-byte SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from metering.errors import ProofInvalid

EMPTY_ROOT = hashlib.sha256(b"").digest()


class Nodes(Protocol):
    """Where the hashes of complete subtrees come from."""

    def node(self, level: int, index: int) -> bytes:
        """MTH(D[index * 2^level : (index + 1) * 2^level])."""
        ...


class MemoryNodes:
    """A tree of leaf hashes held in memory: for tests and for recomputing a root from scratch."""

    def __init__(self, leaf_hashes: Sequence[bytes]) -> None:
        self._levels = [list(leaf_hashes)]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            self._levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])

    def node(self, level: int, index: int) -> bytes:
        return self._levels[level][index]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_root(nodes: Nodes, size: int) -> bytes:
    """MTH(D[0:size])."""
    return _subtree(nodes, 0, size) if size else EMPTY_ROOT


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """PATH(index, D[0:size]), from the leaf's sibling up. ValueError unless 0 <= index < size."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_subtree(nodes, middle, high))
            high = middle
        else:
            path.append(_subtree(nodes, low, middle))
            low = middle
    return path[::-1]


def consistency_proof(nodes: Nodes, old_size: int, new_size: int) -> list[bytes]:
    """PROOF(old_size, D[0:new_size]). Empty when the sizes are equal. ValueError unless 0 < old_size <= new_size."""
    if not 0 < old_size <= new_size:
        raise ValueError(f"no consistency proof from {old_size} to {new_size}")
    proof: list[bytes] = []
    low, high, whole = 0, new_size, True
    while old_size != high:
        middle = low + _split(high - low)
        if old_size <= middle:
            proof.append(_subtree(nodes, middle, high))
            high = middle
        else:
            proof.append(_subtree(nodes, low, middle))
            low, whole = middle, False
    if not whole:
        proof.append(_subtree(nodes, low, high))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ProofInvalid unless `proof` shows that leaf hash `leaf` is at `index` of the tree (RFC 9162 2.1.3.2)."""
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of {size}")
    first, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofInvalid("inclusion proof is too long")
        if first & 1 or first == last:
            computed = node_hash(sibling, computed)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        first, last = first >> 1, last >> 1
    if last != 0:
        raise ProofInvalid("inclusion proof is too short")
    if computed != root:
        raise ProofInvalid("inclusion proof leads to another root")


def verify_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Raise ProofInvalid unless `proof` shows that the old tree is a prefix of the new one (RFC 9162 2.1.4.2)."""
    if not 0 < old_size <= new_size:
        raise ProofInvalid(f"no consistency from size {old_size} to {new_size}")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise ProofInvalid("trees of one size differ")
        return
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise ProofInvalid("consistency proof is empty")
    if _roots_of(old_size, new_size, path) != (old_root, new_root):
        raise ProofInvalid("consistency proof leads to another root")


def _roots_of(old_size: int, new_size: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots of both trees that a consistency path computes."""
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old_computed = new_computed = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofInvalid("consistency proof is too long")
        if first & 1 or first == last:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new_computed = node_hash(new_computed, sibling)
        first, last = first >> 1, last >> 1
    if last != 0:
        raise ProofInvalid("consistency proof is too short")
    return old_computed, new_computed


def _split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    return 1 << (count - 1).bit_length() - 1


def _subtree(nodes: Nodes, low: int, high: int) -> bytes:
    """MTH(D[low:high]) for a range that the RFC's recursion reaches: complete, or the tree's right edge."""
    count = high - low
    level = count.bit_length() - 1
    if count == 1 << level:
        return nodes.node(level, low >> level)
    middle = low + _split(count)
    return node_hash(_subtree(nodes, low, middle), _subtree(nodes, middle, high))
