"""Usage to tokens in a contributor's hands, on a real EVM node."""

from __future__ import annotations

import dataclasses
import json

import pytest

from metering.chain.anchor import anchored_head
from metering.chain.claimfile import ClaimFile, claim_files, parse_claim
from metering.chain.distributor import active_tree, claim
from metering.chain.errors import ChainRefused
from metering.chain.tree import PayoutTree
from metering.check import run_checks
from metering.log import inclusion_proof_text
from metering.note import NoteVerifier

FUNDS = 10**9


def test_usage_becomes_tokens_that_a_contributor_claims_with_a_proof(market, settler, chain, earn):
    """usage -> settlement -> payout tree in the log -> anchored root -> claim: ada is paid exactly what she earned."""
    earned = earn()
    ada = chain.bind(market, "ada")
    chain.fund(FUNDS)
    published = chain.publish(market, settler)
    assert published.state == "active"
    assert published.unbound == ("contributor:bob", "contributor:cyd", "contributor:dee")

    log_key = NoteVerifier(market.config.log_public_key_path.read_text())
    proof = inclusion_proof_text(market.ledger, published.epoch.digest)
    checkpoint = log_key.open_checkpoint(proof.partition("\n\n")[2])
    head = anchored_head(chain.rpc, chain.deployment, checkpoint.origin)
    assert (head.size, head.root) == (checkpoint.size, checkpoint.root)
    assert "sha256:" + active_tree(chain.rpc, chain.deployment).document.hex() == published.epoch.digest

    (file,) = claim_files(market.ledger, chain.deployment, "ada")
    claim(chain.as_signer("ada"), parse_claim(json.loads(json.dumps(file.document()))))
    assert chain.tokens(ada) == earned["ada"] // 1000
    assert market.ledger.account_balance("contributor:ada", "USD").available == earned["ada"] % 1000
    onchain = market.ledger.account_balance(chain.deployment.payout_account, "USD")
    assert onchain.available == chain.tokens(ada) * 1000
    assert run_checks(market.config, market.ledger).clean


@pytest.fixture
def claims(market, settler, chain, earn) -> dict[str, ClaimFile]:
    """Epoch 1 pays ada and bob; their claim files."""
    earn()
    for name in ("ada", "bob"):
        chain.bind(market, name)
    chain.fund(FUNDS)
    chain.publish(market, settler)
    return {name: claim_files(market.ledger, chain.deployment, name)[0] for name in ("ada", "bob")}


def refused(chain, file: ClaimFile) -> str:
    with pytest.raises(ChainRefused) as caught:
        claim(chain.as_signer("ada"), file)
    return caught.value.reason


def test_replayed_claim_reverts(chain, claims):
    """The same proof pays once, whoever sends it."""
    claim(chain.as_signer("ada"), claims["ada"])
    paid = chain.tokens(claims["ada"].address)
    assert refused(chain, claims["ada"]) == "NothingToClaim"
    assert chain.tokens(claims["ada"].address) == paid


def test_forged_claims_revert(chain, claims):
    """More than the leaf says, another's leaf, and a proof of a tree of one's own making: none is paid."""
    ada, bob = claims["ada"], claims["bob"]
    mallory = PayoutTree({ada.address: 10**9, bob.address: 1})
    forged = [
        dataclasses.replace(ada, cumulative_units=ada.cumulative_units + 1),
        dataclasses.replace(ada, address=bob.address),
        dataclasses.replace(ada, proof=bob.proof),
        dataclasses.replace(ada, proof=()),
        dataclasses.replace(ada, cumulative_units=10**9, proof=tuple(mallory.proof(ada.address))),
    ]
    assert [refused(chain, file) for file in forged] == ["ProofInvalid"] * len(forged)
    assert chain.tokens(ada.address) == 0


def test_stale_claim_reverts_and_the_next_pays_the_difference(market, settler, chain, earn, claims):
    """A new epoch replaces the tree; whoever claimed before gets the difference, whoever did not gets everything."""
    claim(chain.as_signer("ada"), claims["ada"])
    earn(20)
    assert chain.publish(market, settler).epoch.number == 2
    assert refused(chain, claims["bob"]) == "ProofInvalid"
    for name in ("ada", "bob"):
        (file,) = claim_files(market.ledger, chain.deployment, name)
        assert file.cumulative_units > claims[name].cumulative_units
        claim(chain.as_signer("ada"), file)  # anyone may send it: the leaf's address is paid
        assert chain.tokens(file.address) == file.cumulative_units
    claimed = chain.rpc.read("PayoutDistributor", chain.deployment.distributor, "totalClaimed")
    assert claimed == active_tree(chain.rpc, chain.deployment).total_units
    assert run_checks(market.config, market.ledger).clean


def test_nothing_new_publishes_nothing(market, settler, chain, claims):
    """Without new earnings there is no new epoch and no transaction."""
    published = chain.publish(market, settler)
    assert published.epoch.number == 1
    nonce = chain.rpc.nonce(chain.signer.address, "latest")
    assert chain.publish(market, settler).epoch.number == 1
    assert chain.rpc.nonce(chain.signer.address, "latest") == nonce


def test_unfunded_epoch_is_refused_with_the_shortfall_and_goes_on_once_funded(market, settler, chain, earn):
    """The distributor never promises more than it holds: the refusal names what is missing, and no epoch is lost."""
    earn()
    chain.bind(market, "ada")
    with pytest.raises(ChainRefused, match=r"Underfunded: missing [0-9]+") as caught:
        chain.publish(market, settler)
    chain.fund(int(caught.value.detail.split()[1]))
    published = chain.publish(market, settler)
    assert (published.state, published.epoch.number) == ("active", 1)
