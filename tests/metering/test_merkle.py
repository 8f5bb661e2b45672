"""Merkle proofs against the RFC's definitions, the published vectors and an independent implementation of the tree."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import log, merkle
from metering.errors import ProofInvalid

# RFC 6962 reference implementation (Certificate Transparency's merkle tree tests): eight leaves and their root
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + definition(leaves[:k]) + definition(leaves[k:])).digest()


def tree(size: int) -> tuple[list[bytes], merkle.MemoryNodes]:
    leaves = [b"leaf %d" % i for i in range(size)]
    return leaves, merkle.MemoryNodes([merkle.leaf_hash(leaf) for leaf in leaves])


def test_the_published_root():
    """Eight published leaves have the published root."""
    hashes = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES]
    assert merkle.tree_root(merkle.MemoryNodes(hashes), 8).hex() == CT_ROOT


@pytest.mark.parametrize("size", range(34))
def test_roots_follow_the_definition(size):
    """The root of every small tree is MTH as the RFC defines it."""
    leaves, nodes = tree(size)
    assert merkle.tree_root(nodes, size) == definition(leaves)


@given(st.data())
def test_inclusion_proofs_verify_and_only_for_their_leaf(data):
    """A proof verifies at its index, size and root; a wrong leaf, index, hash, or length does not."""
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    leaves, nodes = tree(size)
    root, leaf = merkle.tree_root(nodes, size), merkle.leaf_hash(leaves[index])
    proof = merkle.inclusion_proof(nodes, index, size)
    merkle.verify_inclusion(leaf, index, size, proof, root)
    bad = [(b"\0" * 32, index, proof), (leaf, size, proof), (leaf, index, [*proof, root])]
    if proof:
        bad += [(leaf, index, proof[:-1]), (leaf, index, [b"\0" * 32, *proof[1:]]), (leaf, index ^ 1, proof)]
    for other_leaf, other_index, other_proof in bad:
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(other_leaf, other_index, size, other_proof, root)


@given(st.data())
def test_consistency_proofs_verify_and_not_for_a_rewritten_log(data):
    """An older tree is provably a prefix of the newer; one with a changed leaf is not."""
    new_size = data.draw(st.integers(1, 300))
    old_size = data.draw(st.integers(1, new_size))
    leaves, nodes = tree(new_size)
    old_root, new_root = merkle.tree_root(nodes, old_size), merkle.tree_root(nodes, new_size)
    proof = merkle.consistency_proof(nodes, old_size, new_size)
    merkle.verify_consistency(old_size, new_size, proof, old_root, new_root)
    forged = definition([b"forged", *leaves[1:old_size]])
    bad = [(proof, forged, new_root), ([*proof, new_root], old_root, new_root)]
    if proof:
        bad += [(proof[:-1], old_root, new_root), (proof, old_root, forged)]
    for other_proof, first, second in bad:
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(old_size, new_size, other_proof, first, second)


def test_the_stored_tree_is_the_tree_in_memory(ledger):
    """Tiles written over many transactions, past a full tile, give the same roots and proofs as the plain tree."""
    entries = [("contribution", f"sha256:{i:064x}") for i in range(700)]
    hashes = [merkle.leaf_hash(log.leaf_bytes(*entry)) for entry in entries]
    nodes = merkle.MemoryNodes(hashes)
    for start, end in ((0, 1), (1, 255), (255, 256), (256, 513), (513, 700)):
        with ledger.store.write() as connection:
            assert log.LogTree(connection).append(entries[start:end]) == start
    with ledger.store.read() as connection:
        stored = log.LogTree(connection)
        for size in (1, 255, 256, 257, 512, 513, 700):
            assert stored.root(size) == merkle.tree_root(nodes, size)
            assert merkle.inclusion_proof(stored, size // 2, size) == merkle.inclusion_proof(nodes, size // 2, size)
            assert merkle.consistency_proof(stored, size, 700) == merkle.consistency_proof(nodes, size, 700)
