"""What an auditor checks of the payouts, from the ledger's documents alone or against the chain too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metering.chain import documents
from metering.chain.deployment import Deployment
from metering.chain.distributor import ChainTree
from metering.chain.epoch import KIND, Epoch, epoch_of
from metering.chain.errors import ChainError
from metering.check import Finding
from metering.ledger import Ledger
from metering.postings import Postings


def audit_payouts(ledger: Ledger, deployment: Deployment, trees: tuple[ChainTree, ...] = ()) -> list[Finding]:
    """Findings, empty when all is well. `trees`: what the distributor has, active and proposed.

    `payout_tree_wrong`: a document is not what its entries make it; `payout_gap`: epochs are not 1, 2, ... each naming
    the one before; `payout_decreased`: an entry fell or vanished; `payout_not_ledger`: the newest tree promises other
    than the payout account has; `payout_not_chain`: the chain's tree is of no document here.
    """
    with ledger.store.read() as connection:
        found = {
            document["epoch"]: (name, document)
            for name, document in documents.all_of(connection, KIND)
            if (document["chain_id"], document["distributor"]) == (deployment.chain_id, deployment.distributor)
        }
        account = Postings(connection, 0).find(deployment.payout_account, deployment.currency)
    findings: list[Finding] = []
    last: Epoch | None = None
    for number, (name, document) in sorted(found.items()):
        findings += _check_document(deployment, number, name, document, last)
        last = epoch_of(deployment, document)
    promised = sum(last.entries.values()) if last else 0
    moved = account.available if account else 0
    if promised != moved:
        findings.append(Finding("payout_not_ledger", f"promised {promised} nanos, {moved} in the payout account"))
    for tree in trees:
        if tree.epoch and "sha256:" + tree.document.hex() != found.get(tree.epoch, ("",))[0]:
            findings.append(Finding("payout_not_chain", f"epoch {tree.epoch} on chain is of another document"))
        elif tree.epoch and "0x" + tree.root.hex() != found[tree.epoch][1]["root"]:
            findings.append(Finding("payout_not_chain", f"epoch {tree.epoch} on chain has another root"))
    return findings


def _check_document(
    deployment: Deployment, number: int, name: str, document: dict[str, Any], last: Epoch | None
) -> Iterator[Finding]:
    epoch = epoch_of(deployment, document)
    try:
        rebuilt = epoch.digest
    except ChainError as error:
        rebuilt = str(error)
    if rebuilt != name:
        yield Finding("payout_tree_wrong", f"epoch {number}: {name} is rebuilt as {rebuilt}")
    if (number, epoch.previous) != ((last.number + 1, last.digest) if last else (1, None)):
        yield Finding("payout_gap", f"epoch {number} does not follow {last.number if last else 'nothing'}")
    for key, nanos in last.entries.items() if last else ():
        if epoch.entries.get(key, 0) < nanos:
            yield Finding("payout_decreased", f"epoch {number}: {key[0]} at {key[1]} had {nanos} nanos")
