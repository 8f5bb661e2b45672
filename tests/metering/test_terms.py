"""Terms: nobody is paid by terms that do not add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metering.canonical import canonical_bytes
from metering.errors import TermsInvalid
from metering.terms import decode_terms
from metering.windows import TermsTotals, payouts

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "terms.json").read_text())
SPLIT = {"contributors": 700_000, "trainer": 100_000, "host": 100_000, "governance": 50_000, "treasury": 50_000}


def test_terms_round_trip(market):
    """Terms are what their bytes say, and are known by their digest."""
    assert decode_terms(market.terms.encode()) == market.terms
    assert decode_terms(market.terms.encode()).digest == market.terms.digest


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["fact"])
def test_vectors(vector):
    """Each vector is good terms of the stated digest."""
    terms = decode_terms(vector["bytes"].encode())
    assert (terms.encode().decode(), terms.digest) == (vector["bytes"], vector["digest"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "policy"}, "type"),
        ({"extra": 1}, "members"),
        ({"adapter": "oracle"}, "adapter"),
        ({"adapter": None}, "adapter"),
        ({"base": None}, "base"),
        ({"head": None}, "fidelity_ppm"),
        ({"method": "guess"}, "method"),
        ({"fidelity_ppm": 1_000_001}, "fidelity_ppm"),
        ({"fidelity_ppm": "1"}, "fidelity_ppm"),
        ({"host": None}, "host"),
        ({"host": "a:b"}, "host"),
        ({"trainer": 7}, "trainer"),
        ({"trainer": None}, "split_ppm"),
        ({"datanet": None}, "split_ppm"),
        ({"declared": []}, "declared"),
        ({"declared": {}}, "declared"),
        ({"declared": {"ada": 0}}, "declared"),
        ({"declared": {"ada": -1, "bob": 2}}, "declared"),
        ({"declared": {"a b": 1}}, "declared"),
        ({"split_ppm": SPLIT | {"treasury": 50_001}}, "split_ppm"),
        ({"split_ppm": SPLIT | {"treasury": -50_000, "host": 200_000}}, "split_ppm"),
        ({"split_ppm": SPLIT | {"friends": 0}}, "split_ppm"),
        ({"split_ppm": {"contributors": 1_000_000}}, "split_ppm"),
    ],
)
def test_each_broken_member_is_named(market, changes, field):
    """A bad document is TermsInvalid and the error starts with the member's name."""
    document = json.loads(market.terms.encode()) | {"split_ppm": SPLIT} | changes
    with pytest.raises(TermsInvalid, match=f"^{field}"):
        decode_terms(canonical_bytes(document))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"7", b"\xff"])
def test_other_bytes_are_refused(data):
    """What is no terms document at all is TermsInvalid too."""
    with pytest.raises(TermsInvalid):
        decode_terms(data)


def test_several_may_hold_a_role(market):
    """Holders divide a role's part by their weights; what they replace is null."""
    document = json.loads(market.terms.encode()) | {"trainer": None, "holders": {"trainer": {"tom": 700, "tim": 300}}}
    terms = decode_terms(canonical_bytes(document))
    assert decode_terms(terms.encode()) == terms
    assert terms.holders_of("trainer") == {"tom": 700, "tim": 300}
    assert (terms.holders_of("host"), terms.holders_of("governance")) == ({"hal": 1}, {"facts": 1})
    paid = {p.account: p.amount for p in payouts(terms, TermsTotals(amount_nanos=10_000_000), "USD") if p.amount}
    trainers = 10_000_000 * terms.split_ppm["trainer"] // 1_000_000
    assert paid["trainer:tom"] + paid["trainer:tim"] == trainers
    assert paid["trainer:tom"] == -(-trainers * 7 // 10)
    assert "trainer:None" not in paid


@pytest.mark.parametrize(
    "holders",
    [
        {},
        [],
        {"treasury": {"a": 1, "b": 1}},
        {"trainer": {"tom": 1}},
        {"trainer": {"tom": 1, "tim": 0}},
        {"trainer": {"tom": 1, "t m": 1}},
        {"governance": {"facts": 1, "other": 1}},
    ],
)
def test_broken_holders_are_refused(market, holders):
    """Nobody, one, a role without holder, no weight, no name, or a Datanet named twice: TermsInvalid."""
    document = json.loads(market.terms.encode()) | {"trainer": None, "holders": holders}
    with pytest.raises(TermsInvalid, match=r"^holders"):
        decode_terms(canonical_bytes(document))
