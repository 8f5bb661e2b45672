"""A real anvil node, deployed contracts and a market whose payouts they carry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from metering.chain.anchor import AnchorClient
from metering.chain.binding import record_binding, sign_binding
from metering.chain.config import ChainConfig
from metering.chain.contract import contract
from metering.chain.deploy import deploy
from metering.chain.deployment import Deployment
from metering.chain.distributor import PayoutClient
from metering.chain.keys import Signer
from metering.chain.node import AnvilNode, ToolsMissing, install_tools
from metering.chain.outbox import Outbox
from metering.chain.rpc import Rpc
from metering.chain.sender import Sender

# anvil's accounts, from the mnemonic that every development chain uses: not secrets
OPERATOR_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
KEYS = {
    "ada": "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "bob": "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
}


@pytest.fixture(scope="session")
def modules() -> Path:
    """node_modules with compiler and node. A machine without npm skips these tests, except in CI."""
    try:
        return install_tools()
    except ToolsMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_node(modules: Path) -> Iterator[AnvilNode]:
    node = AnvilNode(modules)
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="session")
def deployed(shared_node: AnvilNode) -> Deployment:
    """Contracts without delay on the session's node."""
    return deploy_chain(shared_node, None, 0).deployment


@pytest.fixture
def node(shared_node: AnvilNode, deployed: Deployment) -> Iterator[AnvilNode]:
    """The session's node, put back afterwards to the state before the test."""
    snapshot = shared_node.request("evm_snapshot")
    yield shared_node
    shared_node.request("evm_revert", snapshot)


@dataclass
class Chain:
    """The operator's side of one chain: what `openledger anchor` puts together."""

    node: AnvilNode
    config: ChainConfig
    directory: Path
    rpc: Rpc
    signer: Signer
    sender: Sender
    deployment: Deployment

    def as_signer(self, name: str) -> Sender:
        """Another person's sender, with an outbox of its own in memory."""
        signer = Signer.from_key(KEYS[name])
        outbox = Outbox(None, self.deployment.chain_id, signer.address)
        return Sender(self.rpc, self.config, signer, outbox, self.deployment.chain_id, self.pause)

    def restarted(self) -> Sender:
        """The operator's sender as a new process would open it."""
        return operator_sender(self.rpc, self.config, self.directory, self.pause)

    def pause(self, _seconds: float) -> None:
        """Time passes as blocks, not as seconds of the test."""
        self.node.request("anvil_mine", "0x1")

    def send(self, key: str, contract_name: str, address: str, function: str, *arguments, sender: Sender | None = None):
        data = contract(contract_name).call_data(function, *arguments)
        return (sender or self.sender).finish(key, address, data)

    def fund(self, units: int) -> None:
        """Mint test tokens into the distributor."""
        key = f"fund/{self.rpc.head()}"
        self.send(key, "TestToken", self.deployment.token, "mint", self.deployment.distributor, units)

    def tokens(self, address: str) -> int:
        return self.rpc.read("TestToken", self.deployment.token, "balanceOf", address)

    def anchors(self, market, sender: Sender | None = None) -> AnchorClient:
        key = market.config.log_public_key_path.read_text()
        return AnchorClient(market.ledger, self.deployment, sender or self.sender, key)

    def bind(self, market, account: str, sequence: int = 1, key: str | None = None) -> str:
        """Record a signed binding; the address."""
        signer = Signer.from_key(key or KEYS[account])
        binding = sign_binding(signer, account, self.deployment.chain_id, sequence)
        record_binding(market.ledger, binding)
        return binding.address

    def publish(self, market, settler):
        """What `openledger anchor` does: tree, log entry, anchored head, proposal."""
        payouts = self.payouts(market)
        built = payouts.prepare()
        settler.drain()
        self.anchors(market).anchor()
        return payouts.publish(built)

    def payouts(self, market, sender: Sender | None = None) -> PayoutClient:
        return PayoutClient(market.ledger, self.deployment, sender or self.sender)


def operator_sender(rpc: Rpc, config: ChainConfig, directory: Path | None, pause) -> Sender:
    signer = Signer.from_key(OPERATOR_KEY)
    chain_id = rpc.chain_id()
    outbox = Outbox(directory / "chain.db" if directory else None, chain_id, signer.address)
    return Sender(rpc, config, signer, outbox, chain_id, pause)


@pytest.fixture
def open_chain(node: AnvilNode) -> Iterator[Callable[..., Chain]]:
    """Deploy everything on the node, with the operator's files in a directory."""
    opened = []

    def open_chain(directory: Path, delay_seconds: int = 0, on: AnvilNode = node, **settings) -> Chain:
        opened.append(deploy_chain(on, directory, delay_seconds, **settings))
        return opened[-1]

    yield open_chain
    for chain in opened:
        chain.rpc.close()


def deploy_chain(
    node: AnvilNode, directory: Path | None, delay_seconds: int, deployment: Deployment | None = None, **settings
) -> Chain:
    fast = {
        "confirmations": 2,
        "poll_seconds": 0.01,
        "backoff_seconds": 0.05,
        "outage_seconds": 10.0,
        "final_seconds": 20.0,
    }
    config = ChainConfig(node.url, **(fast | settings))
    rpc = Rpc(config)

    def pause(_seconds: float) -> None:
        node.request("anvil_mine", "0x1")

    sender = operator_sender(rpc, config, directory, pause)
    if deployment is None:
        deployment, _ = deploy(sender, rpc.chain_id(), "USD", None, delay_seconds)
    return Chain(node, config, directory or Path(), rpc, Signer.from_key(OPERATOR_KEY), sender, deployment)


@pytest.fixture
def earn(market, settler):
    """Real usage, settled, and paid to the contributors' ledger accounts: their balances in nanos."""

    def earn(requests: int = 40) -> dict[str, int]:
        market.serve(requests)
        settler.drain()
        settler.close_window()
        return {
            name: market.ledger.account_balance(f"contributor:{name}", "USD").available
            for name in market.terms.declared
        }

    return earn


@pytest.fixture
def chain(node: AnvilNode, deployed: Deployment, tmp_path: Path) -> Iterator[Chain]:
    """The session's contracts as they were deployed, and an operator who has sent nothing yet."""
    chain = deploy_chain(node, tmp_path / "data", 0, deployed)
    yield chain
    chain.rpc.close()
