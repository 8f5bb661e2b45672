"""Anchoring: the log's signed heads recorded by the CheckpointAnchor contract, each proven to extend the one before."""

from __future__ import annotations

from dataclasses import dataclass

from metering.chain.contract import contract
from metering.chain.deployment import Deployment
from metering.chain.errors import AnchorConflict, ChainRefused
from metering.chain.rpc import Receipt, Rpc
from metering.chain.sender import Sender
from metering.ledger import Ledger
from metering.log import LogTree, consistency_proof, latest_checkpoint
from metering.note import Checkpoint, NoteVerifier

TRIES = 3


@dataclass(frozen=True, slots=True)
class Head:
    """What the chain holds of a log: 0 leaves before the first anchoring."""

    size: int
    root: bytes
    block_number: int
    time: int  # seconds since 1970, of the block


def anchored_head(rpc: Rpc, deployment: Deployment, origin: str) -> Head:
    """The newest anchored head of the log `origin`."""
    root, size, block_number, time = rpc.read("CheckpointAnchor", deployment.anchor, "latest", origin)
    return Head(size, root, block_number, time)


class AnchorClient:
    """Brings the chain up to the log. What to do follows from chain and log alone, so it may stop at any moment."""

    def __init__(self, ledger: Ledger, deployment: Deployment, sender: Sender, log_public_key: str) -> None:
        """`log_public_key`: text of log.pub; a head that it did not sign is never anchored."""
        self._ledger = ledger
        self._deployment = deployment
        self._sender = sender
        self._verifier = NoteVerifier(log_public_key)

    def anchor(self) -> tuple[Checkpoint, Receipt | None]:
        """Anchor the newest checkpoint and wait until it is final; no receipt when the chain has it for good already.

        NotIncluded when the log is empty; AnchorConflict when the chain's head is not a prefix of the log.
        """
        checkpoint = self._verifier.open_checkpoint(latest_checkpoint(self._ledger))
        key = f"anchor/{self._deployment.anchor}/{checkpoint.origin}/{checkpoint.size}"
        for _ in range(TRIES):
            head = anchored_head(self._sender.rpc, self._deployment, checkpoint.origin)
            self._require_prefix(head, checkpoint.origin)
            if head.size >= checkpoint.size and not self._sender.known(key):
                return checkpoint, None
            try:
                data = self._call_data(head, checkpoint)
                return checkpoint, self._sender.finish(key, self._deployment.anchor, data)
            except ChainRefused as refused:
                if refused.reason not in ("SizeNotGreater", "Inconsistent"):
                    raise
                last = refused  # the head moved: an earlier transaction was mined first, or someone else's
        raise last

    def _call_data(self, head: Head, checkpoint: Checkpoint) -> bytes:
        proof: list[bytes] = []
        if 0 < head.size < checkpoint.size:
            proof = consistency_proof(self._ledger, head.size, checkpoint.size)
        return contract("CheckpointAnchor").call_data(
            "anchor", checkpoint.origin, checkpoint.size, checkpoint.root, proof
        )

    def _require_prefix(self, head: Head, origin: str) -> None:
        with self._ledger.store.read() as connection:
            tree = LogTree(connection)
            if head.size > tree.size:
                raise AnchorConflict(f"the chain has {head.size} leaves of {origin}, the log {tree.size}")
            if head.size and tree.root(head.size) != head.root:
                raise AnchorConflict(f"the first {head.size} leaves of {origin} are not those anchored")
