"""Merkle trees of payouts: OpenZeppelin's StandardMerkleTree of (address, uint256), so that any tool can check them.

    leaf = keccak256(keccak256(abi.encode(address, cumulative units)))      node = keccak256(min(a, b) || max(a, b))

Leaves are sorted by hash and fill the end of an array, in reverse, whose node i has the children 2i + 1 and 2i + 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eth_abi import encode
from eth_utils import keccak

UINT256_MAX = 2**256 - 1


class PayoutTree:
    """The tree of cumulative token units by lower-case address. ValueError when there is nobody to pay."""

    def __init__(self, units: Mapping[str, int]) -> None:
        if not units:
            raise ValueError("a payout tree needs at least one address")
        leaves = sorted((leaf_hash(address, amount), address) for address, amount in units.items())
        self._nodes = [b""] * (2 * len(leaves) - 1)
        self._index: dict[str, int] = {}
        for i, (leaf, address) in enumerate(leaves):
            self._index[address] = len(self._nodes) - 1 - i
            self._nodes[self._index[address]] = leaf
        for i in range(len(leaves) - 2, -1, -1):
            self._nodes[i] = node_hash(self._nodes[2 * i + 1], self._nodes[2 * i + 2])

    @property
    def root(self) -> bytes:
        return self._nodes[0]

    def proof(self, address: str) -> list[bytes]:
        """The siblings from the address's leaf up. KeyError when it has none."""
        index, path = self._index[address], []
        while index:
            path.append(self._nodes[index + 1 if index % 2 else index - 1])
            index = (index - 1) // 2
        return path


def leaf_hash(address: str, units: int) -> bytes:
    return keccak(keccak(encode(["address", "uint256"], [address, units])))


def node_hash(left: bytes, right: bytes) -> bytes:
    return keccak(min(left, right) + max(left, right))


def root_of(leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that a proof leads to."""
    for sibling in proof:
        leaf = node_hash(leaf, sibling)
    return leaf
