"""The operator's run, the registry, and the chain's independence from everything else."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from metering.chain.anchor import AnchorClient, anchored_head
from metering.chain.config import ChainConfig
from metering.chain.deployment import Deployment
from metering.chain.errors import AnchorConflict, ChainRefused, DeploymentInvalid, PayoutConflict, WrongChain
from metering.chain.operate import Operator
from metering.chain.registry import Registration, RegistryClient, datanet_id, registrations
from metering.errors import NoteInvalid
from metering.note import NoteSigner

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("module", ["gateway.cli.main", "gateway.cli.chain", "metering.settler", "metering.check"])
def test_nothing_loads_the_chain_unless_it_is_used(module):
    """Gateway, settler and CLI start without metering.chain and without any Ethereum library."""
    code = f"import sys, {module}; print([m for m in sys.modules if m.startswith(('eth_', 'web3', 'metering.chain'))])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"


def test_registry_follows_the_terms_of_the_ledger(market, chain):
    """Each adapter with terms is registered with its Datanet and version, once; a second run sends nothing."""
    wanted = registrations(market.ledger)
    assert wanted == [Registration("facts", market.terms.datanet_version, market.terms.adapter)]
    client = RegistryClient(chain.deployment, chain.sender)
    assert [name.partition("/")[0] for name in client.register(wanted).receipts] == ["datanet", "version", "adapter"]
    assert client.register(wanted).receipts == {}
    adapter = bytes.fromhex(market.terms.adapter.removeprefix("sha256:"))
    known = chain.rpc.read("DatanetRegistry", chain.deployment.registry, "adapterOf", adapter)
    assert known[0] == datanet_id("facts")


def test_datanets_of_other_owners_are_left_alone(market, chain):
    """What someone else owns on chain is reported, not touched."""
    ada = chain.as_signer("ada").address
    chain.send("give", "DatanetRegistry", chain.deployment.registry, "registerDatanet", "facts", ada)
    done = RegistryClient(chain.deployment, chain.sender).register(registrations(market.ledger))
    assert (done.receipts, done.foreign) == ({}, ["facts"])


def test_refusal_of_one_part_leaves_the_others_done(market, settler, chain, earn):
    """Without the registrar's and the publisher's role the head is anchored all the same; both refusals are named."""
    earn()
    chain.bind(market, "ada")
    for name, contract_name, role in (
        ("registry", "DatanetRegistry", "REGISTRAR_ROLE"),
        ("distributor", "PayoutDistributor", "PUBLISHER_ROLE"),
    ):
        address = getattr(chain.deployment, name)
        role_id = chain.rpc.read(contract_name, address, role)
        chain.send(f"revoke {name}", contract_name, address, "revokeRole", role_id, chain.signer.address)
    chain.payouts(market).prepare()
    settler.drain()
    key = market.config.log_public_key_path.read_text()
    report = Operator(market.ledger, chain.deployment, chain.sender, key).run()
    assert report.anchored is not None
    assert {what: refused.reason for what, refused in report.refused.items()} == {
        "payouts": "AccessControlUnauthorizedAccount",
        "registry": "AccessControlUnauthorizedAccount",
    }


def test_rewritten_log_is_refused_before_anything_is_sent(market, settler, chain, earn):
    """The chain keeps a head that the local log does not extend: AnchorConflict, whichever of the two is shorter."""
    earn(1)
    origin = market.config.log_origin
    address = chain.deployment.anchor
    chain.send("rogue", "CheckpointAnchor", address, "anchor", origin, 2, b"\x07" * 32, [])
    with pytest.raises(AnchorConflict, match=r"the first 2 leaves of openledger\.local/log are not those anchored"):
        chain.anchors(market).anchor()
    nonce = chain.rpc.nonce(chain.signer.address, "latest")
    with pytest.raises(AnchorConflict):
        chain.anchors(market).anchor()
    assert chain.rpc.nonce(chain.signer.address, "latest") == nonce


def test_chain_ahead_of_the_log_is_a_conflict(market, settler, chain, earn):
    """A log restored from an old backup cannot anchor over what it has forgotten."""
    earn(1)
    arguments = (market.config.log_origin, 1000, b"\x07" * 32, [])
    chain.send("ahead", "CheckpointAnchor", chain.deployment.anchor, "anchor", *arguments)
    with pytest.raises(AnchorConflict, match="the chain has 1000 leaves"):
        chain.anchors(market).anchor()


def test_head_that_another_key_signed_is_never_anchored(market, chain, earn):
    """The note is verified against log.pub first."""
    earn(1)
    other = NoteSigner(market.config.log_origin, b"\x01" * 32).public_key
    with pytest.raises(NoteInvalid):
        AnchorClient(market.ledger, chain.deployment, chain.sender, other).anchor()
    assert anchored_head(chain.rpc, chain.deployment, market.config.log_origin).size == 0


def test_each_batch_extends_the_last(market, chain, earn):
    """Several checkpoints, one after another, each with its consistency proof checked on chain."""
    for requests in (1, 2, 5, 8):
        earn(requests)
        checkpoint, receipt = chain.anchors(market).anchor()
        head = anchored_head(chain.rpc, chain.deployment, checkpoint.origin)
        assert (head.size, head.root, head.block_number) == (checkpoint.size, checkpoint.root, receipt.block_number)
        assert receipt.gas_used < 200_000


def test_payout_tree_of_another_ledger_is_a_conflict(market, settler, chain, earn):
    """Someone else's root under our epoch number is noticed, and nothing is promised on top of it."""
    earn()
    chain.bind(market, "ada")
    chain.fund(10**9)
    chain.payouts(market).prepare()
    arguments = (1, b"\x07" * 32, 5, b"\x07" * 32)
    chain.send("rogue", "PayoutDistributor", chain.deployment.distributor, "propose", *arguments)
    with pytest.raises(PayoutConflict):
        chain.payouts(market).prepare()


def test_anchorer_whose_role_was_revoked_is_told_so(market, chain, earn):
    """The contract's own error is what the operator reads."""
    earn(1)
    role = chain.rpc.read("CheckpointAnchor", chain.deployment.anchor, "ANCHORER_ROLE")
    arguments = (role, chain.signer.address)
    chain.send("revoke", "CheckpointAnchor", chain.deployment.anchor, "revokeRole", *arguments)
    with pytest.raises(ChainRefused, match=f"AccessControlUnauthorizedAccount: account {chain.signer.address}"):
        chain.anchors(market).anchor()


def test_deployment_file_is_checked_member_by_member(chain):
    """A file that was edited wrongly is refused by name; a good one comes back as it was."""
    path = chain.directory / "chain.json"
    chain.deployment.save(path)
    assert Deployment.load(path) == chain.deployment
    good = path.read_text()
    for before, after, words in (
        ('"type"', '"tipe"', "members"),
        ("deployment.v1", "deployment.v9", "type is not"),
        (chain.deployment.anchor, "0x12", "40 hex digits"),
        ('"nanos_per_step": 1000', '"nanos_per_step": 0', "nanos_per_step"),
        ('"chain_id": 31337', '"chain_id": "x"', "chain_id"),
        ("{", "", "Extra data"),
    ):
        path.write_text(good.replace(before, after, 1))
        with pytest.raises(DeploymentInvalid, match=words):
            Deployment.load(path)


def test_node_of_another_chain_is_refused(chain):
    """The wrong network, or addresses without code: WrongChain before anything is signed."""
    chain.deployment.require_chain(chain.rpc)
    with pytest.raises(WrongChain, match="the node is on chain 31337, the deployment on 1"):
        dataclasses.replace(chain.deployment, chain_id=1).require_chain(chain.rpc)
    with pytest.raises(WrongChain, match="the deployment's anchor"):
        dataclasses.replace(chain.deployment, anchor="0x" + "12" * 20).require_chain(chain.rpc)


@pytest.mark.parametrize(
    "bad", [{"rpc_url": "ws://x"}, {"rpc_url": "http://"}, {"confirmations": 0}, {"poll_seconds": 0.0}]
)
def test_settings_that_cannot_work_are_refused(bad):
    """At construction, by name; and the URL is not part of what is shown."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        ChainConfig(**({"rpc_url": "http://127.0.0.1:1/key"} | bad))
    assert "key" not in repr(ChainConfig("http://127.0.0.1:1/key"))
