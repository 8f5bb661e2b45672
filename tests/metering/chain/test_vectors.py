"""The bytes of docs/formats/chain.md."""

from __future__ import annotations

import json
from pathlib import Path

from metering.canonical import canonical_bytes, digest, parse_canonical
from metering.chain.binding import parse_binding, sign_binding
from metering.chain.claimfile import parse_claim
from metering.chain.deployment import Deployment
from metering.chain.epoch import Epoch
from metering.chain.keys import Signer

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "chain.json").read_text())
PAGE = (ROOT / "docs" / "formats" / "chain.md").read_text()


def test_binding_has_these_bytes():
    """Text, signature and digest of a signed binding; RFC 6979 makes the signature reproducible."""
    binding = parse_binding(parse_canonical(VECTORS["binding"].encode()))
    binding.verify()
    assert binding == sign_binding(Signer.from_key(VECTORS["key"]), "ada", 31337, 1)
    assert binding.text() == VECTORS["binding_text"]
    assert digest(VECTORS["binding"].encode()) == VECTORS["binding_digest"]


def test_payout_tree_has_these_bytes():
    """The document's members, its root and its digest."""
    known = json.loads(VECTORS["payout_tree"])
    deployment = Deployment(31337, *("0x" + pair * 20 for pair in ("01", "02", "03", "04")), "USD", 1000, 1)
    entries = {(entry["payee"], entry["address"]): entry["nanos"] for entry in known["entries"]}
    epoch = Epoch(deployment, known["epoch"], known["previous"], entries)
    assert canonical_bytes(epoch.document()).decode() == VECTORS["payout_tree"]
    assert epoch.digest == VECTORS["payout_tree_digest"]


def test_claim_file_is_of_that_tree():
    """Its root is the payout tree's, and its proof leads there."""
    claim = parse_claim(VECTORS["claim"])
    assert claim.root == json.loads(VECTORS["payout_tree"])["root"]


def test_page_shows_the_vectors():
    """What the format page shows is what the tests check."""
    for name in ("binding", "binding_digest", "payout_tree", "payout_tree_digest"):
        assert VECTORS[name] in PAGE, name
    assert VECTORS["claim"]["proof"][0] in PAGE
    assert all("    " + line in PAGE for line in VECTORS["binding_text"].splitlines())
