"""Claim files: what a contributor needs to be paid, without trusting or asking the operator again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from metering.chain.address import parse_address
from metering.chain.binding import find_binding
from metering.chain.deployment import Deployment
from metering.chain.epoch import last_epoch
from metering.chain.errors import ClaimInvalid, NothingPublished
from metering.chain.tree import UINT256_MAX, leaf_hash, root_of
from metering.ledger import Ledger

CLAIM_TYPE = "org.openledger.claim.v1"
HASH = re.compile(r"0x[0-9a-f]{64}\Z")
DECIMAL = re.compile(r"[1-9][0-9]{0,77}\Z")


@dataclass(frozen=True, slots=True)
class ClaimFile:
    """That `address` was promised `cumulative_units` token units since the beginning, and the proof for the root."""

    chain_id: int
    distributor: str
    epoch: int
    root: str
    address: str
    cumulative_units: int
    proof: tuple[bytes, ...]

    def document(self) -> dict[str, Any]:
        """JSON object; the amount is a decimal string, since it may exceed 64 bits."""
        return {
            "type": CLAIM_TYPE,
            "chain_id": self.chain_id,
            "distributor": self.distributor,
            "epoch": self.epoch,
            "root": self.root,
            "address": self.address,
            "cumulative_units": str(self.cumulative_units),
            "proof": ["0x" + value.hex() for value in self.proof],
        }


def claim_files(ledger: Ledger, deployment: Deployment, account: str) -> list[ClaimFile]:
    """One for each address that `account` was ever promised something at, from the newest epoch.

    BindingMissing when the account has no address, NothingPublished when no epoch pays it yet.
    """
    with ledger.store.read() as connection:
        epoch = last_epoch(connection, deployment)
    addresses = sorted(
        {address for payee, address in (epoch.entries if epoch else {}) if payee.partition(":")[2] == account}
    )
    if epoch is None or not addresses:
        find_binding(ledger, account, deployment.chain_id)
        raise NothingPublished(f"no epoch pays {account} yet")
    tree, units = epoch.tree(), epoch.units()
    return [
        ClaimFile(
            deployment.chain_id,
            deployment.distributor,
            epoch.number,
            "0x" + tree.root.hex(),
            address,
            units[address],
            tuple(tree.proof(address)),
        )
        for address in addresses
    ]


def parse_claim(document: Any) -> ClaimFile:
    """ClaimInvalid, naming the member, unless it is a claim file whose proof leads to its root."""
    members = {"type", *ClaimFile.__slots__}
    if not isinstance(document, dict) or document.keys() != members or document["type"] != CLAIM_TYPE:
        raise ClaimInvalid(f"not an object of type {CLAIM_TYPE} with exactly {', '.join(sorted(members))}")
    for name in ("chain_id", "epoch"):
        if type(document[name]) is not int or document[name] < 1:
            raise ClaimInvalid(f"{name}: {document[name]!r} is not a positive integer")
    for name in ("distributor", "address"):
        _check_address(name, document[name])
    units, proof, root = document["cumulative_units"], document["proof"], document["root"]
    if not isinstance(units, str) or not DECIMAL.match(units) or int(units) > UINT256_MAX:
        raise ClaimInvalid("cumulative_units: not a positive decimal of 256 bits")
    if not isinstance(proof, list) or not all(isinstance(value, str) and HASH.match(value) for value in [root, *proof]):
        raise ClaimInvalid("proof, root: not 0x and 64 hex digits each")
    path = tuple(bytes.fromhex(value[2:]) for value in proof)
    if root_of(leaf_hash(document["address"], int(units)), path) != bytes.fromhex(root[2:]):
        raise ClaimInvalid("proof: leads to another root")
    rest = {name: value for name, value in document.items() if name not in ("type", "cumulative_units", "proof")}
    return ClaimFile(cumulative_units=int(units), proof=path, **rest)


def _check_address(name: str, value: object) -> None:
    try:
        if parse_address(value) != value:
            raise ValueError(f"{value} is not in lower case")
    except ValueError as error:
        raise ClaimInvalid(f"{name}: {error}") from error
