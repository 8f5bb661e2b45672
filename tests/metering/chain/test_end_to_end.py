"""Usage to tokens in a contributor's hands, on a real EVM node."""

from __future__ import annotations

import json

import pytest

from metering.chain.anchor import anchored_head
from metering.chain.binding import record_binding, sign_binding
from metering.chain.claimfile import claim_files, parse_claim
from metering.chain.contract import contract
from metering.chain.distributor import active_tree, claim
from metering.chain.errors import ChainRefused
from metering.chain.keys import Signer
from metering.check import run_checks
from metering.log import inclusion_proof_text
from metering.note import NoteVerifier, split_note

ADA_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
BOB_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"
FUNDS = 10**9


def earn(market, settler, requests: int = 40) -> None:
    """Real usage, settled and paid to the contributors' ledger accounts."""
    market.serve(requests)
    settler.drain()
    settler.close_window()


def bind(market, chain, account: str, key: str, sequence: int = 1) -> str:
    binding = sign_binding(Signer.from_key(key), account, chain.deployment.chain_id, sequence)
    record_binding(market.ledger, binding)
    return binding.address


def publish(market, settler, chain):
    """What `openledger anchor` does."""
    payouts = chain.payouts(market)
    built = payouts.prepare()
    settler.drain()  # the tree's document becomes a leaf
    chain.anchors(market).anchor()
    return payouts.publish(built)


def test_usage_becomes_tokens_that_a_contributor_claims_with_a_proof(market, settler, chain):
    """usage -> settlement -> payout tree in the log -> anchored root -> claim: ada is paid exactly what she earned."""
    earn(market, settler)
    earned_nanos = market.ledger.account_balance("contributor:ada", "USD").credits
    ada = bind(market, chain, "ada", ADA_KEY)
    chain.fund(FUNDS)
    published = publish(market, settler, chain)
    assert published.state == "active"
    assert published.unbound == ("contributor:bob", "contributor:cyd", "contributor:dee")

    note = NoteVerifier(market.config.log_public_key_path.read_text())
    checkpoint = note.open_checkpoint(inclusion_proof_text(market.ledger, published.epoch.digest).partition("\n\n")[2])
    head = anchored_head(chain.rpc, chain.deployment, checkpoint.origin)
    assert (head.size, head.root) == (checkpoint.size, checkpoint.root)
    assert "sha256:" + active_tree(chain.rpc, chain.deployment).document.hex() == published.epoch.digest

    (file,) = claim_files(market.ledger, chain.deployment, "ada")
    receipt = claim(chain.as_signer(ADA_KEY), parse_claim(json.loads(json.dumps(file.document()))))
    assert receipt.gas_used < 120_000
    assert chain.tokens(ada) == earned_nanos // 1000
    ledger = market.ledger
    assert ledger.account_balance("contributor:ada", "USD").available == earned_nanos % 1000
    onchain = ledger.account_balance(chain.deployment.payout_account, "USD").credits
    assert onchain == chain.tokens(ada) * 1000
    assert run_checks(market.config, ledger).clean
