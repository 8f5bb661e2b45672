"""Where the contracts are: `chain.json` in the data directory (docs/formats/chain.md). It holds no secret."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from metering.chain.address import parse_address
from metering.chain.errors import DeploymentInvalid, RateInvalid, WrongChain
from metering.chain.rate import Rate
from metering.chain.rpc import Rpc

DEPLOYMENT_TYPE = "org.openledger.deployment.v1"
FILE_NAME = "chain.json"
CONTRACTS = ("registry", "anchor", "distributor", "token")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One set of contracts on one chain, for one currency. Addresses in lower case."""

    chain_id: int
    registry: str
    anchor: str
    distributor: str
    token: str
    currency: str
    nanos_per_step: int
    units_per_step: int

    @property
    def rate(self) -> Rate:
        return Rate(self.nanos_per_step, self.units_per_step)

    @property
    def payout_account(self) -> str:
        """The ledger account of everything that was promised on chain."""
        return f"onchain:{self.chain_id}:{self.distributor}"

    def save(self, path: Path) -> None:
        """Write the file, atomically."""
        text = json.dumps({"type": DEPLOYMENT_TYPE, **asdict(self)}, indent=2) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """DeploymentInvalid, naming the member, when the file is missing or not one of ours."""
        try:
            document = json.loads(path.read_text())
        except FileNotFoundError:
            raise DeploymentInvalid(f"{path} does not exist; `openledger anchor deploy` writes it") from None
        except (OSError, ValueError) as error:
            raise DeploymentInvalid(f"{path}: {error}") from error
        if not isinstance(document, dict) or document.keys() != {"type", *cls.__slots__}:
            raise DeploymentInvalid(f"{path}: members are not exactly type, {', '.join(cls.__slots__)}")
        if document.pop("type") != DEPLOYMENT_TYPE:
            raise DeploymentInvalid(f"{path}: type is not {DEPLOYMENT_TYPE}")
        try:
            addresses = {name: parse_address(document[name]) for name in CONTRACTS}
            Rate(document["nanos_per_step"], document["units_per_step"])
        except (ValueError, RateInvalid) as error:
            raise DeploymentInvalid(f"{path}: {error}") from error
        if type(document["chain_id"]) is not int or not isinstance(document["currency"], str):
            raise DeploymentInvalid(f"{path}: chain_id is not an integer, or currency is not text")
        return cls(**(document | addresses))

    def require_chain(self, rpc: Rpc) -> None:
        """WrongChain unless the node is on this chain and has code at every address."""
        found = rpc.chain_id()
        if found != self.chain_id:
            raise WrongChain(f"the node is on chain {found}, the deployment on {self.chain_id}")
        for name in CONTRACTS:
            if not rpc.code(getattr(self, name)):
                raise WrongChain(f"no contract at {getattr(self, name)}, the deployment's {name}")
