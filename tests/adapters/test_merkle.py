"""The Merkle tree is RFC 6962's."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.merkle import inclusion_path, merkle_root, root_from_path

# From the test vectors of certificate-transparency (RFC 6962), as in Google's trillian: roots of the first n leaves.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def naive_root(leaves: list[bytes]) -> bytes:
    """Section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def test_published_vectors():
    """The roots of the first 1 to 8 leaves are those published for certificate transparency."""
    assert [merkle_root(LEAVES[:size]).hex() for size in range(1, 9)] == list(ROOTS)


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_the_recursive_definition(leaves):
    """One pass gives the root of the recursive definition, also of no leaves."""
    assert merkle_root(iter(leaves)) == naive_root(leaves)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_inclusion(leaves, data):
    """A leaf's path leads to the root; with any hash changed, dropped or added, it does not."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = inclusion_path(leaves, index), merkle_root(leaves)
    assert root_from_path(leaves[index], index, len(leaves), path) == root
    assert root_from_path(leaves[index] + b"x", index, len(leaves), path) != root
    assert root_from_path(leaves[index], index, len(leaves), [*path, root]) != root
    if path:
        assert root_from_path(leaves[index], index, len(leaves), path[:-1]) != root
        broken = [*path[:-1], bytes(32)]
        assert root_from_path(leaves[index], index, len(leaves), broken) != root


def test_no_such_leaf():
    """An index outside the tree has no path and leads to no root."""
    with pytest.raises(IndexError):
        inclusion_path([b"a"], 1)
    assert root_from_path(b"a", 1, 1, []) is None
