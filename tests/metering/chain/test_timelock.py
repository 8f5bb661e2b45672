"""Payout trees that wait: the delay, the guardian, and the client's view of both."""

from __future__ import annotations

import pytest

from metering.chain.claimfile import claim_files
from metering.chain.distributor import claim
from metering.chain.errors import ChainRefused, ProposalCancelled

DELAY_SECONDS = 3600


@pytest.fixture
def delayed(node, tmp_path, market, settler, earn, open_chain):
    """A distributor with a delay, and an epoch of ada's earnings proposed to it."""
    chain = open_chain(tmp_path / "data", DELAY_SECONDS)
    earn()
    chain.bind(market, "ada")
    chain.fund(10**9)
    published = chain.publish(market, settler)
    assert published.state == "waiting"
    return chain


def test_tree_takes_effect_after_its_delay_and_not_before(market, settler, delayed):
    """Before: nothing to claim, no activation. After: the same command activates it, and the claim pays."""
    (file,) = claim_files(market.ledger, delayed.deployment, "ada")
    with pytest.raises(ChainRefused, match="ProofInvalid"):
        claim(delayed.as_signer("ada"), file)
    with pytest.raises(ChainRefused, match="TooEarly"):
        delayed.send("early", "PayoutDistributor", delayed.deployment.distributor, "activate")
    assert delayed.publish(market, settler).state == "waiting"
    delayed.node.request("evm_increaseTime", DELAY_SECONDS + 1)
    delayed.node.request("anvil_mine", "0x1")
    assert delayed.publish(market, settler).state == "active"
    claim(delayed.as_signer("ada"), file)
    assert delayed.tokens(file.address) == file.cumulative_units


def test_cancelled_tree_waits_for_a_person(market, settler, delayed):
    """The client does not propose again what a guardian withdrew, unless it is told to."""
    delayed.send("cancel", "PayoutDistributor", delayed.deployment.distributor, "cancel")
    with pytest.raises(ProposalCancelled):
        delayed.publish(market, settler)
    payouts = delayed.payouts(market)
    assert payouts.publish(payouts.prepare(), again=True).state == "waiting"


def test_second_proposal_is_refused_while_one_waits(delayed):
    """Nobody can put a tree in the place of one that is being looked at."""
    arguments = (1, b"\x01" * 32, 0, b"\x01" * 32)
    with pytest.raises(ChainRefused, match="ProposalWaits"):
        delayed.send("again", "PayoutDistributor", delayed.deployment.distributor, "propose", *arguments)
