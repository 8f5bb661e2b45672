"""The auditor's checks: clean after honest work, and a finding for each way to cheat with a payout tree."""

from __future__ import annotations

import dataclasses

import pytest

from metering.chain import documents
from metering.chain.audit import audit_payouts
from metering.chain.binding import Binding, record_binding
from metering.chain.deployment import Deployment
from metering.chain.distributor import ChainTree
from metering.chain.epoch import KIND, Epoch, build_epoch
from metering.ledger import Transfer

ADDRESSES = {"ada": "0x" + "a1" * 20, "bob": "0x" + "b2" * 20}
DEPLOYMENT = Deployment(31337, *("0x" + pair * 20 for pair in ("01", "02", "03", "04")), "USD", 1000, 1)


@pytest.fixture
def epoch(market, earn) -> Epoch:
    """Two honest epochs; the second."""
    for name, address in ADDRESSES.items():
        record_binding(market.ledger, Binding(name, address, DEPLOYMENT.chain_id, 1))
    for number in range(2):
        earn()
        built = build_epoch(market.ledger, DEPLOYMENT, number)
    return built.epoch


def names(market, *trees: ChainTree) -> list[str]:
    return [finding.name for finding in audit_payouts(market.ledger, DEPLOYMENT, trees)]


def on_chain(honest: Epoch, **changes) -> ChainTree:
    document = bytes.fromhex(honest.digest.removeprefix("sha256:"))
    return dataclasses.replace(ChainTree(honest.tree().root, document, honest.total_units, honest.number, 0), **changes)


def publish(market, epoch: Epoch, **changes) -> None:
    """Put a third tree past the builder, as a dishonest operator would."""
    third = dataclasses.replace(epoch, number=3, previous=epoch.digest)
    with market.ledger.store.write() as connection:
        documents.put(connection, KIND, dataclasses.replace(third, **changes).document())


def test_honest_epochs_have_no_findings(market, epoch):
    """Ledger, documents and chain agree; before the first epoch too."""
    assert names(market, on_chain(epoch), ChainTree(b"", b"", 0, 0, 0)) == []


def test_decreased_and_vanished_entries_are_found(market, epoch):
    """Taking from one to give to another shows, even when the total stands."""
    (ada, bob) = sorted(epoch.entries)
    moved = {ada: epoch.entries[ada] + epoch.entries[bob]}
    publish(market, epoch, entries=moved)
    assert names(market) == ["payout_decreased"]


def test_promises_beyond_the_ledger_are_found(market, epoch):
    """A tree that promises more than was moved to the payout account, or less after money left it."""
    (ada, _) = sorted(epoch.entries)
    publish(market, epoch, entries=epoch.entries | {ada: epoch.entries[ada] + 1000})
    assert names(market) == ["payout_not_ledger"]


def test_money_taken_from_the_payout_account_is_found(market, epoch):
    """What was promised must stay there."""
    market.ledger.open_account("elsewhere", "USD", overdraft=False)
    taken = Transfer("take", DEPLOYMENT.payout_account, "elsewhere", "USD", 1, "take")
    market.ledger.transfer(taken).require()
    assert names(market) == ["payout_not_ledger"]


def test_broken_sequence_is_found(market, epoch):
    """A tree that does not name the one before it."""
    publish(market, epoch, previous=None)
    assert names(market) == ["payout_gap"]


def test_document_with_a_wrong_root_is_found(market, epoch):
    """The root in a document is rebuilt, not believed."""
    document = dataclasses.replace(epoch, number=3, previous=epoch.digest).document() | {"root": "0x" + "00" * 32}
    with market.ledger.store.write() as connection:
        documents.put(connection, KIND, document)
    assert names(market) == ["payout_tree_wrong"]


def test_foreign_tree_on_chain_is_found(market, epoch):
    """Another document's digest, another root, or an epoch that the ledger never had."""
    for changes in ({"document": b"\x07" * 32}, {"root": b"\x07" * 32}, {"epoch": 9}):
        assert names(market, on_chain(epoch, **changes)) == ["payout_not_chain"], changes
