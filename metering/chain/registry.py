"""The on-chain registry, brought up to the adapters that the ledger's terms name."""

from __future__ import annotations

from dataclasses import dataclass, field

from eth_utils import keccak

from metering.chain import documents
from metering.chain.address import ZERO
from metering.chain.contract import contract
from metering.chain.deployment import Deployment
from metering.chain.rpc import Receipt
from metering.chain.sender import Sender
from metering.ledger import Ledger


@dataclass(frozen=True, order=True, slots=True)
class Registration:
    """An adapter, the Datanet it belongs to and the version it was trained on; digests as `sha256:<hex>`."""

    datanet: str
    version: str
    adapter: str


@dataclass(slots=True)
class Registered:
    """What `register` did, by what it registered, and the Datanets it left alone because others own them."""

    receipts: dict[str, Receipt] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)


def registrations(ledger: Ledger) -> list[Registration]:
    """Every adapter with a Datanet version that the ledger has terms for."""
    with ledger.store.read() as connection:
        found = {
            Registration(terms["datanet"], terms["datanet_version"], terms["adapter"])
            for _, terms in documents.all_of(connection, "terms")
            if terms["adapter"] and terms["datanet"] and terms["datanet_version"]
        }
    return sorted(found)


def datanet_id(name: str) -> bytes:
    return keccak(name.encode())


class RegistryClient:
    """Registers what the chain lacks, as the sender's own Datanets. Repeatable: what is there is left alone."""

    def __init__(self, deployment: Deployment, sender: Sender) -> None:
        self._address = deployment.registry
        self._sender = sender

    def register(self, wanted: list[Registration]) -> Registered:
        """Datanets, then versions, then adapters; each is waited for until it is in a block.

        ChainRefused `AccessControlUnauthorizedAccount` when a new name is needed and the sender is no registrar.
        """
        done = Registered()
        for name in sorted({item.datanet for item in wanted}):
            owner = self._read("ownerOf", datanet_id(name))
            if owner == ZERO:
                self._send(done, f"datanet/{name}", "registerDatanet", name, self._sender.address)
            elif owner != self._sender.address:
                done.foreign.append(name)
        own = [item for item in wanted if item.datanet not in done.foreign]
        for name, version in sorted({(item.datanet, item.version) for item in own}):
            if not self._read("versionBlock", datanet_id(name), _bytes32(version)):
                self._send(done, f"version/{version}", "publishVersion", datanet_id(name), _bytes32(version))
        for item in own:
            if not self._read("adapterOf", _bytes32(item.adapter))[2]:
                arguments = (datanet_id(item.datanet), _bytes32(item.version), _bytes32(item.adapter))
                self._send(done, f"adapter/{item.adapter}", "registerAdapter", *arguments)
        return done

    def _read(self, function: str, *arguments: object):
        return self._sender.rpc.read("DatanetRegistry", self._address, function, *arguments)

    def _send(self, done: Registered, name: str, function: str, *arguments: object) -> None:
        data = contract("DatanetRegistry").call_data(function, *arguments)
        done.receipts[name] = self._sender.finish(
            f"registry/{self._address}/{name}", self._address, data, until="mined"
        )


def _bytes32(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
