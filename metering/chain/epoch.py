"""Payout epochs: what the ledger owes becomes a Merkle tree of cumulative amounts (docs/formats/chain.md).

One transaction moves each payee's balance to the deployment's payout account and stores the tree's document, so the
ledger never owes the same nanos both here and on chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metering.canonical import canonical_bytes, digest
from metering.chain import documents
from metering.chain.binding import bindings
from metering.chain.deployment import Deployment
from metering.chain.errors import PayoutConflict
from metering.chain.tree import PayoutTree
from metering.ledger import Ledger, now_us
from metering.postings import Account, Postings, Transfer
from metering.store import Connection

KIND = "payout_tree"
ROLES = ("contributor",)  # also possible: trainer, host, governance


@dataclass(frozen=True, slots=True)
class Epoch:
    """A published tree. `entries`: cumulative nanos by (payee's ledger account, address); they never decrease."""

    deployment: Deployment
    number: int
    previous: str | None  # digest of the epoch before
    entries: dict[tuple[str, str], int]

    def units(self) -> dict[str, int]:
        """Cumulative token units by address: what the leaves say."""
        by_address: Counter[str] = Counter()
        for (_, address), nanos in self.entries.items():
            by_address[address] += self.deployment.rate.units(nanos)
        return dict(by_address)

    @property
    def total_units(self) -> int:
        return sum(self.units().values())

    def tree(self) -> PayoutTree:
        return PayoutTree(self.units())

    def document(self) -> dict[str, Any]:
        return {
            "type": KIND,
            "chain_id": self.deployment.chain_id,
            "distributor": self.deployment.distributor,
            "currency": self.deployment.currency,
            "nanos_per_step": self.deployment.nanos_per_step,
            "units_per_step": self.deployment.units_per_step,
            "epoch": self.number,
            "previous": self.previous,
            "entries": [
                {"payee": payee, "address": address, "nanos": nanos}
                for (payee, address), nanos in sorted(self.entries.items())
            ],
            "root": "0x" + self.tree().root.hex(),
            "total_units": str(self.total_units),
        }

    @property
    def digest(self) -> str:
        return digest(canonical_bytes(self.document()))


@dataclass(frozen=True, slots=True)
class Built:
    """The newest epoch (None before the first), and the payees that wait for an address."""

    epoch: Epoch | None
    unbound: tuple[str, ...] = ()


def build_epoch(
    ledger: Ledger, deployment: Deployment, after: int, roles: tuple[str, ...] = ROLES, minimum_nanos: int = 1
) -> Built:
    """The epoch after number `after`: built now, or the one that was; `after` itself when nobody is owed anything new.

    Pays every account `role:name` whose `name` is bound and that has at least `minimum_nanos` and one step of the rate.
    """
    with ledger.store.write() as connection:
        last = last_epoch(connection, deployment)
        number = last.number if last else 0
        if number < after:
            raise PayoutConflict(f"the chain is at epoch {after}, the ledger at {number}")
        postings = Postings(connection, now_us())
        bound = bindings(connection, deployment.chain_id)
        owed = list(_owed(connection, postings, deployment, roles, minimum_nanos))
        unbound = tuple(account.name for account, _ in owed if _person(account) not in bound)
        payable = [(account, amount_nanos) for account, amount_nanos in owed if _person(account) in bound]
        if number > after or not payable:
            return Built(last, unbound)
        entries = dict(last.entries) if last else {}
        for account, amount_nanos in payable:
            _move(postings, deployment, after + 1, account, amount_nanos)
            key = (account.name, bound[_person(account)].address)
            entries[key] = entries.get(key, 0) + amount_nanos
        epoch = Epoch(deployment, after + 1, last.digest if last else None, entries)
        postings.flush()
        documents.put(connection, KIND, epoch.document())
        return Built(epoch, unbound)


def last_epoch(connection: Connection, deployment: Deployment) -> Epoch | None:
    """The newest epoch of a deployment that the ledger has."""
    newest: dict[str, Any] | None = None
    for _, document in documents.all_of(connection, KIND):
        of = (document["chain_id"], document["distributor"])
        if of == (deployment.chain_id, deployment.distributor) and (
            newest is None or document["epoch"] > newest["epoch"]
        ):
            newest = document
    if newest is None:
        return None
    rate = (newest["nanos_per_step"], newest["units_per_step"])
    if rate != (deployment.nanos_per_step, deployment.units_per_step) or newest["currency"] != deployment.currency:
        raise PayoutConflict("a deployment's currency and rate never change: deploy another distributor")
    return epoch_of(deployment, newest)


def epoch_of(deployment: Deployment, document: dict[str, Any]) -> Epoch:
    """The epoch of a payout tree document of this deployment."""
    entries = {(entry["payee"], entry["address"]): entry["nanos"] for entry in document["entries"]}
    return Epoch(deployment, document["epoch"], document["previous"], entries)


def _owed(
    connection: Connection, postings: Postings, deployment: Deployment, roles: tuple[str, ...], minimum_nanos: int
) -> Iterator[tuple[Account, int]]:
    """The accounts of these roles with the nanos that can be paid of each, in whole steps."""
    for role in roles:
        rows = connection.execute(
            "SELECT name FROM accounts WHERE name LIKE ? AND unit = ? ORDER BY name",
            (f"{role}:%", deployment.currency),
        )
        for (name,) in rows:
            account = postings.find(name, deployment.currency)
            amount_nanos = deployment.rate.payable_nanos(max(0, account.available)) if account else 0
            if account and amount_nanos >= max(1, minimum_nanos):
                yield account, amount_nanos


def _person(account: Account) -> str:
    return account.name.partition(":")[2]


def _move(postings: Postings, deployment: Deployment, number: int, account: Account, amount_nanos: int) -> None:
    receiver = postings.open(deployment.payout_account, deployment.currency, overdraft=False)
    identifier = f"payout/{deployment.chain_id}/{deployment.distributor}/{number}/{account.name}"
    transfer = Transfer(identifier, account.name, receiver.name, deployment.currency, amount_nanos, "onchain")
    postings.post(transfer, account, receiver)
