"""What the operator does each time: payout tree, anchored head, proposal, registry, in that order; and what came of it.

The tree's document is a log entry before the head is anchored, so whoever sees a proposed root can find what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from metering.chain.anchor import AnchorClient, anchored_head
from metering.chain.audit import audit_payouts
from metering.chain.deployment import Deployment
from metering.chain.distributor import PayoutClient, Published, active_tree, proposed_tree
from metering.chain.epoch import ROLES, last_epoch
from metering.chain.errors import ChainRefused
from metering.chain.registry import Registered, RegistryClient, registrations
from metering.chain.rpc import Receipt, Rpc
from metering.chain.sender import Sender
from metering.errors import NotIncluded
from metering.ledger import Ledger
from metering.log import latest_checkpoint, wait_included
from metering.money import format_nanos
from metering.note import Checkpoint, parse_checkpoint, split_note

SEQUENCE_SECONDS = 15.0  # for the settler to take a new payout tree into the log


@dataclass(slots=True)
class Report:
    """What one run did. `refused`: what the contracts said no to, and why; the rest was done all the same."""

    checkpoint: Checkpoint | None = None
    anchored: Receipt | None = None
    registered: Registered = field(default_factory=Registered)
    published: Published | None = None
    refused: dict[str, ChainRefused] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"registered": {}, "foreign": self.registered.foreign}
        for name, receipt in self.registered.receipts.items():
            found["registered"][name] = cost_document(receipt)
        if self.checkpoint is not None:
            found["checkpoint"] = {"origin": self.checkpoint.origin, "size": self.checkpoint.size}
            found["anchored"] = cost_document(self.anchored) if self.anchored else None
        if self.published is not None:
            epoch = self.published.epoch
            found["payouts"] = {
                "state": self.published.state,
                "epoch": epoch.number if epoch else 0,
                "total_units": str(epoch.total_units if epoch else 0),
                "unbound": list(self.published.unbound),
                "active_at": self.published.active_at,
                "transactions": [cost_document(receipt) for receipt in self.published.receipts],
            }
        found["refused"] = {what: {"reason": no.reason, "detail": no.detail} for what, no in self.refused.items()}
        return found

    def lines(self) -> Iterator[str]:
        """The same for people."""
        for name, receipt in self.registered.receipts.items():
            yield f"registered {name[:40]}: {cost_text(cost_document(receipt))}"
        for name in self.registered.foreign:
            yield f"left alone {name}: another address owns it"
        if self.checkpoint is not None:
            how = cost_text(cost_document(self.anchored)) if self.anchored else "the chain has it already"
            yield f"anchored   {self.checkpoint.size} leaves of {self.checkpoint.origin}: {how}"
        if self.published is None:
            return
        epoch = self.published.epoch
        what = f"epoch {epoch.number}, {epoch.total_units} units in all" if epoch else "nothing to pay"
        costs = [cost_text(cost_document(receipt)) for receipt in self.published.receipts]
        yield ": ".join([f"payouts    {self.published.state}, {what}", *costs])
        if self.published.state == "waiting":
            yield f"           takes effect at {self.published.active_at} (seconds since 1970); run again then"
        for name in self.published.unbound:
            yield f"           {name} has no payout address; its balance waits"


class Operator:
    """One deployment's operator: brings the chain up to the ledger, repeatably."""

    def __init__(self, ledger: Ledger, deployment: Deployment, sender: Sender, log_public_key: str) -> None:
        self._ledger = ledger
        self._sender = sender
        self._anchor = AnchorClient(ledger, deployment, sender, log_public_key)
        self._payouts = PayoutClient(ledger, deployment, sender)
        self._registry = RegistryClient(deployment, sender)

    def run(
        self,
        *,
        payouts: bool = True,
        registry: bool = True,
        again: bool = False,
        roles: tuple[str, ...] = ROLES,
        minimum_nanos: int = 1,
        sequence_seconds: float = SEQUENCE_SECONDS,
    ) -> Report:
        """See the module. NotIncluded when a new tree does not get into the log: is the settler running?"""
        report = Report()
        built = self._payouts.prepare(roles, minimum_nanos) if payouts else None
        if built is not None and built.epoch is not None:
            wait_included(self._ledger, built.epoch.digest, sequence_seconds)
        report.checkpoint, report.anchored = self._anchor.anchor()
        if built is not None:
            try:
                report.published = self._payouts.publish(built, again)
            except ChainRefused as refused:
                report.refused["payouts"] = refused
        if registry:
            try:
                report.registered = self._registry.register(registrations(self._ledger))
            except ChainRefused as refused:
                report.refused["registry"] = refused
        return report


def compare(rpc: Rpc, ledger: Ledger, deployment: Deployment, origin: str) -> dict[str, Any]:
    """What the chain has and what the ledger has, side by side, and the findings of `audit_payouts`."""
    head = anchored_head(rpc, deployment, origin)
    active, proposed = active_tree(rpc, deployment), proposed_tree(rpc, deployment)
    with ledger.store.read() as connection:
        epoch = last_epoch(connection, deployment)
    try:
        size = parse_checkpoint(split_note(latest_checkpoint(ledger))[0]).size
    except NotIncluded:
        size = 0
    return {
        "log_size": size,
        "anchored_size": head.size,
        "anchored_block": head.block_number,
        "ledger_epoch": epoch.number if epoch else 0,
        "active_epoch": active.epoch,
        "proposed_epoch": proposed.epoch,
        "promised_units": str(active.total_units),
        "claimed_units": str(rpc.read("PayoutDistributor", deployment.distributor, "totalClaimed")),
        "distributor_units": str(rpc.read("TestToken", deployment.token, "balanceOf", deployment.distributor)),
        "findings": [
            {"name": finding.name, "detail": finding.detail}
            for finding in audit_payouts(ledger, deployment, (active, proposed))
        ],
    }


def cost_document(receipt: Receipt) -> dict[str, Any]:
    """Where a transaction is and what it cost; the fee in wei as a decimal string."""
    return {
        "transaction": receipt.transaction_hash,
        "block": receipt.block_number,
        "gas_used": receipt.gas_used,
        "fee_wei": str(receipt.gas_used * receipt.gas_price_wei),
    }


def cost_text(cost: dict[str, Any]) -> str:
    gwei = format_nanos(int(cost["fee_wei"]), 0)
    return f"gas {cost['gas_used']:,}, fee {gwei} gwei, block {cost['block']}, {cost['transaction']}"
