"""The Merkle tree of RFC 6962 section 2.1 over a list of byte strings.

leaf hash  = sha256(0x00 || leaf)
node hash  = sha256(0x01 || left || right),  the left subtree holding the largest power of two of leaves below n
empty tree = sha256("")
"""

import hashlib
from collections.abc import Iterable, Sequence


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """The 32-byte root, in one pass and O(log n) memory: a stack of perfect subtrees, as in a binary counter."""
    stack: list[bytes] = []
    for count, leaf in enumerate(leaves):
        node = leaf_hash(leaf)
        carry = count
        while carry & 1:
            node = node_hash(stack.pop(), node)
            carry >>= 1
        stack.append(node)
    if not stack:
        return hashlib.sha256(b"").digest()
    root = stack.pop()
    while stack:
        root = node_hash(stack.pop(), root)
    return root


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The sibling hashes from leaf `index` to the root (RFC 6962 section 2.1.1); IndexError outside the tree."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree of {len(leaves)}")
    path: list[bytes] = []
    level = [leaf_hash(leaf) for leaf in leaves]
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        odd = level[-1:] if len(level) % 2 else []
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + odd
        index //= 2
    return path


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that `path` leads to from `leaf`; None when the path does not fit (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    node, last, remaining = leaf_hash(leaf), size - 1, list(path)
    while last:
        if index % 2 or index < last:
            if not remaining:
                return None
            sibling = remaining.pop(0)
            node = node_hash(sibling, node) if index % 2 else node_hash(node, sibling)
        index //= 2
        last //= 2
    return None if remaining else node
