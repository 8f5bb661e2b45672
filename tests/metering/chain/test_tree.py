"""Payout trees against OpenZeppelin's own library, and against forgeries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.chain.tree import UINT256_MAX, PayoutTree, leaf_hash, root_of

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "payout-tree.json").read_text())["cases"]
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
UNITS = st.integers(1, UINT256_MAX)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{len(case['leaves'])} leaves")
def test_roots_and_proofs_are_those_of_openzeppelins_library(case):
    """The vectors were made with @openzeppelin/merkle-tree."""
    tree = PayoutTree({leaf["address"]: int(leaf["units"]) for leaf in case["leaves"]})
    assert "0x" + tree.root.hex() == case["root"]
    for leaf in case["leaves"]:
        assert ["0x" + value.hex() for value in tree.proof(leaf["address"])] == leaf["proof"]


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(ADDRESSES, UNITS, min_size=1, max_size=12), ADDRESSES, UNITS)
def test_every_leaf_proves_itself_and_nothing_else(units, stranger, amount):
    """Each proof leads to the root for its own address and amount, and for no other."""
    tree = PayoutTree(units)
    for address, own in units.items():
        proof = tree.proof(address)
        assert root_of(leaf_hash(address, own), proof) == tree.root
        if (stranger, amount) != (address, own):
            assert root_of(leaf_hash(stranger, amount), proof) != tree.root


def test_empty_tree_is_refused():
    """There is no root of nobody."""
    with pytest.raises(ValueError, match="at least one address"):
        PayoutTree({})
