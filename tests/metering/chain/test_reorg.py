"""Reorganisations: what a fork of the chain drops is sent again, and what was final is looked after too."""

from __future__ import annotations

import dataclasses

import pytest

from metering.chain.anchor import anchored_head
from metering.chain.claimfile import claim_files
from metering.chain.distributor import active_tree, claim, claimed_units
from metering.chain.errors import NotFinal
from metering.chain.sender import Sender


def head_size(chain) -> int:
    return anchored_head(chain.rpc, chain.deployment, "openledger.local/log").size


def test_anchor_that_a_reorganisation_drops_is_sent_again(market, settler, chain, earn):
    """The block with the anchoring vanishes while the client waits; it notices, sends it again, and ends final."""
    earn(1)
    steps = iter(range(100))
    wait = chain.pause

    def reorganise_once(seconds: float) -> None:
        if next(steps) == 0:
            assert head_size(chain) > 0
            chain.node.request("anvil_reorg", 1, [])
            chain.sizes = [head_size(chain)]
        wait(seconds)

    chain.pause = reorganise_once
    checkpoint, receipt = chain.anchors(market, chain.restarted()).anchor()
    assert chain.sizes == [0]
    assert head_size(chain) == checkpoint.size
    assert chain.rpc.receipt(receipt.transaction_hash) == receipt


def test_anchors_dropped_deeper_than_the_confirmations_come_back(market, settler, chain, earn):
    """Even final transactions are looked after: two anchorings are dropped, the next run restores both, in order."""
    for _ in range(2):
        earn(1)
        chain.anchors(market).anchor()
    size = head_size(chain)
    nonce = chain.rpc.nonce(chain.signer.address, "latest")
    chain.node.request("anvil_reorg", chain.rpc.head() - first_block(chain) + 1, [])
    assert head_size(chain) == 0
    checkpoint, _ = chain.anchors(market, chain.restarted()).anchor()
    assert head_size(chain) == checkpoint.size == size
    assert chain.rpc.nonce(chain.signer.address, "latest") == nonce, "the same two transactions, and no more"


def first_block(chain) -> int:
    """The block of the first anchoring."""
    logs = chain.rpc.request("eth_getLogs", {"fromBlock": "0x0", "address": chain.deployment.anchor})
    return min(int(entry["blockNumber"], 16) for entry in logs if len(entry["topics"]) == 3 and len(entry["data"]) > 66)


def test_payout_tree_and_claim_survive_a_reorganisation(market, settler, chain, earn):
    """A dropped proposal is proposed again with the same root, so that proofs given out before still pay."""
    earn()
    ada = chain.bind(market, "ada")
    chain.fund(10**9)
    block = chain.rpc.head()
    published = chain.publish(market, settler)
    (file,) = claim_files(market.ledger, chain.deployment, "ada")
    chain.node.request("anvil_reorg", chain.rpc.head() - block, [])
    assert active_tree(chain.rpc, chain.deployment).epoch == 0
    again = chain.publish(market, settler)
    assert again.epoch.digest == published.epoch.digest
    claim(chain.as_signer("ada"), file)
    assert chain.tokens(ada) == claimed_units(chain.rpc, chain.deployment, ada) == file.cumulative_units


def test_claim_dropped_by_a_reorganisation_pays_once(market, settler, chain, earn):
    """The claimant's client sends the same transaction again; the contributor has the amount once."""
    earn()
    chain.bind(market, "ada")
    chain.fund(10**9)
    chain.publish(market, settler)
    (file,) = claim_files(market.ledger, chain.deployment, "ada")
    ada = chain.as_signer("ada")
    for _ in range(2):
        claim(ada, file)
        assert chain.tokens(file.address) == file.cumulative_units
        chain.node.request("anvil_reorg", 2, [])
        assert chain.tokens(file.address) == 0
    claim(ada, file)
    assert chain.tokens(file.address) == file.cumulative_units


def test_waiting_ends_with_a_name_and_goes_on_later(market, settler, chain, earn):
    """No new blocks: NotFinal after the limit. The next run goes on with the same transaction."""
    earn(1)
    outbox = chain.sender._outbox
    hasty = dataclasses.replace(chain.config, final_seconds=0.001)
    sender = Sender(chain.rpc, hasty, chain.signer, outbox, chain.deployment.chain_id, lambda _: None)
    with pytest.raises(NotFinal, match=r"is (pending|mined) as 0x[0-9a-f]{64}"):
        chain.anchors(market, sender).anchor()
    nonce = chain.rpc.nonce(chain.signer.address, "pending")
    checkpoint, receipt = chain.anchors(market).anchor()
    assert receipt is not None
    assert chain.rpc.nonce(chain.signer.address, "pending") == nonce
    assert head_size(chain) == checkpoint.size
