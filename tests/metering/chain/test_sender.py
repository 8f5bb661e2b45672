"""Transactions that happen once: crashes at every step, nonces used by others, fees that were too low."""

from __future__ import annotations

import dataclasses

import pytest

from metering.chain.contract import contract
from metering.chain.errors import ChainRefused, ChainUnavailable
from metering.chain.keys import Signer
from metering.chain.outbox import Outbox
from metering.chain.sender import Sender


@pytest.fixture
def mint(chain):
    """Mint one token under a key: a transaction that would show if it happened twice."""
    address = "0x" + "cc" * 20
    data = contract("TestToken").call_data("mint", address, 1)
    return ("mint", chain.deployment.token, data), lambda: chain.tokens(address)


def test_same_key_is_one_transaction(chain, mint):
    """Asked for again, before and after it is final and from another process, it stays the one that was sent."""
    arguments, minted = mint
    first = chain.sender.finish(*arguments)
    assert chain.sender.finish(*arguments) == first
    assert chain.restarted().finish(*arguments) == first
    assert minted() == 1


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_blockNumber"])
@pytest.mark.parametrize("delivered", [False, True])
def test_crash_at_any_exchange_is_resumed(chain, mint, method, delivered):
    """The connection breaks before or after the node got the request; a new process ends with one transaction."""
    arguments, minted = mint
    original, calls = chain.rpc.request, []

    def breaking(name: str, *parameters):
        if name == method and not calls:
            calls.append(name)
            if delivered:
                original(name, *parameters)
            raise ChainUnavailable("cut")
        return original(name, *parameters)

    chain.rpc.request = breaking
    with pytest.raises(ChainUnavailable):
        chain.sender.finish(*arguments)
    chain.restarted().finish(*arguments)
    assert minted() == 1


def test_nonce_used_up_by_another_tool_is_replaced(chain, mint):
    """The key was used elsewhere while our transaction waited: it is signed anew, with the next nonce."""
    arguments, minted = mint
    chain.rpc.broadcast = lambda raw: None  # signed and stored, never sent
    assert chain.sender.ensure(*arguments).state == "pending"
    del chain.rpc.broadcast
    elsewhere = Sender(
        chain.rpc,
        chain.config,
        chain.signer,
        Outbox(None, chain.deployment.chain_id, chain.signer.address),
        chain.deployment.chain_id,
        chain.pause,
    )
    elsewhere.finish("other", chain.deployment.token, contract("TestToken").call_data("mint", "0x" + "dd" * 20, 1))
    chain.sender.finish(*arguments)
    assert minted() == 1


def test_transaction_that_waits_too_long_is_offered_for_more(chain, mint):
    """Same nonce, higher fee: whichever attempt is mined, it happens once."""
    arguments, minted = mint
    chain.node.request("evm_setAutomine", False)
    try:
        first = chain.sender.ensure(*arguments)
        impatient = Sender(
            chain.rpc,
            dataclasses.replace(chain.config, replace_seconds=1e-6),
            chain.signer,
            chain.sender._outbox,
            chain.deployment.chain_id,
            chain.pause,
        )
        second = impatient.ensure(*arguments)
        assert second.transaction_hash != first.transaction_hash
        pool = chain.rpc.request("txpool_content")["pending"]
        (waiting,) = [of for sender, of in pool.items() if sender.lower() == chain.signer.address]
        assert [entry["hash"] for entry in waiting.values()] == [second.transaction_hash]
        assert chain.sender.finish(*arguments).transaction_hash == second.transaction_hash
    finally:
        chain.node.request("evm_setAutomine", True)
    assert minted() == 1


def test_transaction_that_reverts_in_its_block_is_named_and_can_be_tried_again(chain):
    """What passed the simulation and then failed raises the contract's reason; the key is free for another try."""
    token, distributor = chain.deployment.token, chain.deployment.distributor
    chain.fund(100)
    rescue = contract("PayoutDistributor").call_data("rescue", token, "0x" + "ee" * 20, 100)
    chain.node.request("evm_setAutomine", False)
    try:
        chain.sender.ensure("first", distributor, rescue)
        chain.rpc.estimate_gas = lambda call: 200_000  # as a node that does not look at waiting transactions
        chain.sender.ensure("second", distributor, rescue)
        del chain.rpc.estimate_gas
        chain.sender.finish("first", distributor, rescue)
        with pytest.raises(ChainRefused, match="SurplusExceeded"):
            chain.sender.finish("second", distributor, rescue)
    finally:
        chain.node.request("evm_setAutomine", True)
    chain.fund(100)
    chain.sender.finish("second", distributor, rescue)
    assert chain.tokens("0x" + "ee" * 20) == 200


def test_sender_without_funds_is_refused_in_the_nodes_words(chain, mint):
    """No coins for gas: ChainRefused before anything is signed."""
    signer = Signer.from_key("0x" + "11" * 32)
    outbox = Outbox(None, chain.deployment.chain_id, signer.address)
    poor = Sender(chain.rpc, chain.config, signer, outbox, chain.deployment.chain_id)
    chain.rpc.request("anvil_setBalance", signer.address, "0x1")
    with pytest.raises(ChainRefused, match=r"(?i)insufficient funds"):
        poor.finish(*mint[0])
