"""Epochs built from the ledger, without any chain."""

from __future__ import annotations

import dataclasses

import pytest

from metering.canonical import parse_canonical
from metering.chain.binding import Binding, record_binding
from metering.chain.claimfile import claim_files
from metering.chain.deployment import Deployment
from metering.chain.epoch import build_epoch
from metering.chain.errors import BindingMissing, NothingPublished, PayoutConflict
from metering.check import run_checks
from metering.ledger import Transfer

A, B = "0x" + "a1" * 20, "0x" + "b2" * 20
DEPLOYMENT = Deployment(
    chain_id=31337,
    registry="0x" + "01" * 20,
    anchor="0x" + "02" * 20,
    distributor="0x" + "03" * 20,
    token="0x" + "04" * 20,
    currency="USD",
    nanos_per_step=1000,
    units_per_step=1,
)


@pytest.fixture
def bind(ledger):
    def bind(account: str, address: str, sequence: int = 1) -> None:
        record_binding(ledger, Binding(account, address, DEPLOYMENT.chain_id, sequence))

    return bind


def test_epoch_moves_exactly_what_it_promises(market, earn, bind):
    """Each payee's whole steps leave its account in the transaction that stores the tree; dust stays."""
    earned = earn()
    bind("ada", A)
    bind("bob", B)
    built = build_epoch(market.ledger, DEPLOYMENT, 0)
    assert built.epoch.units() == {A: earned["ada"] // 1000, B: earned["bob"] // 1000}
    assert built.unbound == ("contributor:cyd", "contributor:dee")
    for name in ("ada", "bob"):
        assert market.ledger.account_balance(f"contributor:{name}", "USD").available == earned[name] % 1000
    onchain = market.ledger.account_balance(DEPLOYMENT.payout_account, "USD").credits
    assert onchain == 1000 * built.epoch.total_units
    document = parse_canonical(market.ledger.document(built.epoch.digest))
    assert document["root"] == "0x" + built.epoch.tree().root.hex()
    assert run_checks(market.config, market.ledger).clean


def test_building_again_gives_the_same_epoch(market, earn, bind):
    """Until the chain has it, the epoch stands: earnings that come in meanwhile wait for the next."""
    earn()
    bind("ada", A)
    first = build_epoch(market.ledger, DEPLOYMENT, 0).epoch
    earn()
    bind("bob", B)
    assert build_epoch(market.ledger, DEPLOYMENT, 0).epoch == first
    second = build_epoch(market.ledger, DEPLOYMENT, 1).epoch
    assert (second.number, second.previous) == (2, first.digest)
    assert second.units()[A] > first.units()[A]


def test_what_was_paid_elsewhere_is_not_paid_on_chain(market, earn, bind):
    """A bank payout is a transfer out of the contributor's account; the tree pays only what is left."""
    earned = earn()
    bind("ada", A)
    market.ledger.open_account("bank", "USD", overdraft=False)
    market.ledger.transfer(Transfer("bank-1", "contributor:ada", "bank", "USD", 5_000, "payout")).require()
    assert build_epoch(market.ledger, DEPLOYMENT, 0).epoch.units()[A] == (earned["ada"] - 5_000) // 1000


def test_new_address_gets_what_is_earned_after_it(market, earn, bind):
    """What was published to the former address stays claimable there; nothing is promised twice."""
    earned = earn()
    bind("ada", A)
    first = build_epoch(market.ledger, DEPLOYMENT, 0).epoch
    bind("ada", B, sequence=2)
    more = earn()
    second = build_epoch(market.ledger, DEPLOYMENT, 1).epoch
    assert second.units() == {A: first.units()[A], B: more["ada"] // 1000}
    assert 1000 * second.total_units <= earned["ada"] + more["ada"]
    assert [file.address for file in claim_files(market.ledger, DEPLOYMENT, "ada")] == [A, B]


def test_two_people_may_share_an_address(market, earn, bind):
    """Their amounts add up in one leaf."""
    earned = earn()
    bind("ada", A)
    bind("bob", A)
    assert build_epoch(market.ledger, DEPLOYMENT, 0).epoch.units() == {A: earned["ada"] // 1000 + earned["bob"] // 1000}


def test_other_roles_are_paid_when_asked_for(market, earn, bind):
    """A trainer or host can be paid the same way."""
    earn()
    bind("tom", A)
    assert build_epoch(market.ledger, DEPLOYMENT, 0).epoch is None
    built = build_epoch(market.ledger, DEPLOYMENT, 0, roles=("trainer",))
    assert list(built.epoch.entries) == [("trainer:tom", A)]


def test_amounts_below_the_minimum_wait(market, earn, bind):
    """A minimum keeps leaves that cost more gas than they pay out of the tree."""
    earned = earn()
    bind("ada", A)
    bind("bob", B)
    built = build_epoch(market.ledger, DEPLOYMENT, 0, minimum_nanos=earned["ada"] - earned["ada"] % 1000)
    assert list(built.epoch.units()) == [A]


def test_missing_binding_and_missing_epoch_have_names(market, earn, bind):
    """A person without an address, and one whom no epoch pays yet, are told which it is."""
    earn()
    with pytest.raises(BindingMissing, match="no payout address is recorded for ada on chain 31337"):
        claim_files(market.ledger, DEPLOYMENT, "ada")
    bind("ada", A)
    with pytest.raises(NothingPublished):
        claim_files(market.ledger, DEPLOYMENT, "ada")


def test_chain_ahead_of_the_ledger_and_changed_rates_are_conflicts(market, earn, bind):
    """A ledger restored from a backup, or a deployment file that was edited, stops before anything is promised."""
    earn()
    bind("ada", A)
    with pytest.raises(PayoutConflict, match="the chain is at epoch 1, the ledger at 0"):
        build_epoch(market.ledger, DEPLOYMENT, 1)
    build_epoch(market.ledger, DEPLOYMENT, 0)
    with pytest.raises(PayoutConflict, match="never change"):
        build_epoch(market.ledger, dataclasses.replace(DEPLOYMENT, units_per_step=2), 1)
