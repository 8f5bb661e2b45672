"""Payouts on chain: epochs proposed and activated by the operator, tokens claimed by anyone for a contributor."""

from __future__ import annotations

from dataclasses import dataclass

from metering.chain.claimfile import ClaimFile
from metering.chain.contract import contract
from metering.chain.deployment import Deployment
from metering.chain.epoch import ROLES, Built, Epoch, build_epoch
from metering.chain.errors import PayoutConflict, ProposalCancelled, WrongChain
from metering.chain.rpc import Receipt, Rpc
from metering.chain.sender import Sender
from metering.ledger import Ledger


@dataclass(frozen=True, slots=True)
class ChainTree:
    """A payout tree as the distributor has it; epoch 0: none. `active_at` in seconds since 1970."""

    root: bytes
    document: bytes
    total_units: int
    epoch: int
    active_at: int


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` came to: `state` is idle (nothing owed), waiting (for the delay) or active."""

    state: str
    epoch: Epoch | None
    unbound: tuple[str, ...]
    receipts: tuple[Receipt, ...] = ()
    active_at: int = 0


def active_tree(rpc: Rpc, deployment: Deployment) -> ChainTree:
    return ChainTree(*rpc.read("PayoutDistributor", deployment.distributor, "active"))


def proposed_tree(rpc: Rpc, deployment: Deployment) -> ChainTree:
    return ChainTree(*rpc.read("PayoutDistributor", deployment.distributor, "proposal"))


def claimed_units(rpc: Rpc, deployment: Deployment, address: str) -> int:
    return rpc.read("PayoutDistributor", deployment.distributor, "claimed", address)


class PayoutClient:
    """Brings the distributor up to the ledger, one epoch at a time. It may stop at any moment and be run again."""

    def __init__(self, ledger: Ledger, deployment: Deployment, sender: Sender) -> None:
        self._ledger = ledger
        self._deployment = deployment
        self._sender = sender

    def prepare(self, roles: tuple[str, ...] = ROLES, minimum_nanos: int = 1) -> Built:
        """The epoch that is due, built from the ledger if it was not yet. Sends nothing.

        PayoutConflict when the chain's active tree is not the ledger's.
        """
        on_chain = active_tree(self._sender.rpc, self._deployment)
        built = build_epoch(self._ledger, self._deployment, on_chain.epoch, roles, minimum_nanos)
        if built.epoch is not None and built.epoch.number == on_chain.epoch:
            _require_same(on_chain, built.epoch)
        return built

    def publish(self, built: Built, again: bool = False) -> Published:
        """Propose the epoch and, once its delay is over, activate it; each step waits until it is final.

        ChainRefused `Underfunded` names the token units the distributor lacks. ProposalCancelled when a guardian
        withdrew this epoch, unless `again`.
        """
        epoch = built.epoch
        on_chain = active_tree(self._sender.rpc, self._deployment)
        key = f"propose/{self._deployment.distributor}/{epoch.number if epoch else 0}"
        if epoch is None or (epoch.number == on_chain.epoch and not self._sender.known(key)):
            return Published("idle", epoch, built.unbound)
        proposal = proposed_tree(self._sender.rpc, self._deployment)
        receipts = []
        if epoch.number > on_chain.epoch and proposal.epoch == 0 and again:
            key += f"/again/{self._sender.rpc.head()}"
        if proposal.epoch == 0 or self._sender.known(key):
            receipts.append(self._sender.finish(key, self._deployment.distributor, self._propose(epoch)))
            proposal = proposed_tree(self._sender.rpc, self._deployment)
        on_chain = active_tree(self._sender.rpc, self._deployment)
        if proposal.epoch == epoch.number:
            _require_same(proposal, epoch)
            if self._sender.rpc.time() < proposal.active_at:
                return Published("waiting", epoch, built.unbound, tuple(receipts), proposal.active_at)
        elif on_chain.epoch < epoch.number:
            raise ProposalCancelled(f"epoch {epoch.number} was withdrawn by a guardian; look at it before trying again")
        activate = f"activate/{self._deployment.distributor}/{epoch.number}"
        if proposal.epoch == epoch.number or self._sender.known(activate):
            data = contract("PayoutDistributor").call_data("activate")
            receipts.append(self._sender.finish(activate, self._deployment.distributor, data))
            on_chain = active_tree(self._sender.rpc, self._deployment)
        _require_same(on_chain, epoch)
        return Published("active", epoch, built.unbound, tuple(receipts))

    def _propose(self, epoch: Epoch) -> bytes:
        document = bytes.fromhex(epoch.digest.removeprefix("sha256:"))
        return contract("PayoutDistributor").call_data(
            "propose", epoch.number, epoch.tree().root, epoch.total_units, document
        )


def claim(sender: Sender, claim_file: ClaimFile) -> Receipt:
    """Have the distributor pay what the claim's address is promised and has not got; waits until it is final.

    ChainRefused `NothingToClaim` (replayed), `ProofInvalid` (forged, or of an older tree). Any signer may send it.
    """
    if not sender.rpc.code(claim_file.distributor):
        raise WrongChain(f"no contract at {claim_file.distributor}")
    data = contract("PayoutDistributor").call_data(
        "claim", claim_file.address, claim_file.cumulative_units, list(claim_file.proof)
    )
    key = f"claim/{claim_file.distributor}/{claim_file.address}/{claim_file.epoch}"
    return sender.finish(key, claim_file.distributor, data)


def _require_same(tree: ChainTree, epoch: Epoch) -> None:
    if (tree.epoch, tree.root) != (epoch.number, epoch.tree().root):
        raise PayoutConflict(f"the chain's tree {tree.epoch} is not the ledger's {epoch.number}")
