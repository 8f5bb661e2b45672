"""Claim files from strangers: every malformed one has a name, and a changed one never verifies."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.chain.claimfile import ClaimFile, parse_claim
from metering.chain.errors import ClaimInvalid
from metering.chain.tree import PayoutTree

A, B = "0x" + "a1" * 20, "0x" + "b2" * 20
TREE = PayoutTree({A: 5, B: 7})
GOOD = ClaimFile(1, "0x" + "03" * 20, 4, "0x" + TREE.root.hex(), A, 5, tuple(TREE.proof(A)))


def test_claim_file_survives_json():
    """What is written is what is read."""
    assert parse_claim(json.loads(json.dumps(GOOD.document()))) == GOOD


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"type": "x"}, "type"),
        ({"more": 1}, "exactly"),
        ({"chain_id": "1"}, "chain_id"),
        ({"epoch": 0}, "epoch"),
        ({"distributor": "0x00"}, "distributor"),
        ({"address": A.upper().replace("X", "x")}, "address"),
        ({"address": B}, "proof"),
        ({"cumulative_units": 5}, "cumulative_units"),
        ({"cumulative_units": "05"}, "cumulative_units"),
        ({"cumulative_units": "-5"}, "cumulative_units"),
        ({"cumulative_units": str(2**256)}, "cumulative_units"),
        ({"cumulative_units": "6"}, "proof"),
        ({"root": "0x" + "00" * 32}, "proof"),
        ({"proof": []}, "proof"),
        ({"proof": ["0x00"]}, "proof"),
        ({"proof": None}, "proof"),
    ],
)
def test_bad_members_are_named(change, member):
    """Types, forms and the proof itself are checked before anything is sent."""
    with pytest.raises(ClaimInvalid, match=member):
        parse_claim(GOOD.document() | change)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(GOOD.document())), JSON)
def test_no_json_value_gets_past_or_crashes_the_parser(name, value):
    """Any value in any member: ClaimInvalid, or it is the same file."""
    document = GOOD.document() | {name: value}
    try:
        assert parse_claim(document).document() == document
    except ClaimInvalid:
        return
    assert name in ("chain_id", "epoch", "distributor") or document == GOOD.document()
