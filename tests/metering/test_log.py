"""The stored log: what was signed before stays provable."""

from __future__ import annotations

import pytest

from metering import log, merkle
from metering.errors import NotIncluded
from metering.note import NoteVerifier


def test_checkpoints_are_consistent(market, settler):
    """Each checkpoint is provably a prefix of every later one."""
    verifier = NoteVerifier(market.config.log_public_key_path.read_text())
    checkpoints = []
    for count in (1, 5, 40):
        market.serve(count)
        settler.drain()
        checkpoints.append(verifier.open_checkpoint(log.latest_checkpoint(market.ledger)))
    assert [checkpoint.size for checkpoint in checkpoints] == [4, 9, 49]
    for old, new in ((0, 1), (0, 2), (1, 2)):
        first, second = checkpoints[old], checkpoints[new]
        proof = log.consistency_proof(market.ledger, first.size, second.size)
        merkle.verify_consistency(first.size, second.size, proof, first.root, second.root)


def test_what_is_not_sequenced_is_not_included(market):
    """Without a settler an entry waits: wait_included says so after its timeout."""
    name = log.append_entry(market.ledger, "adapter", b"{}")
    with pytest.raises(NotIncluded, match="settler"):
        log.wait_included(market.ledger, name, timeout_seconds=0.05)
    with pytest.raises(NotIncluded):
        log.inclusion_proof_text(market.ledger, name)
