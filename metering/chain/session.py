"""A node, a signer and its outbox, opened together and closed together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metering.chain.config import ChainConfig
from metering.chain.keys import Signer
from metering.chain.outbox import Outbox
from metering.chain.rpc import Rpc
from metering.chain.sender import Sender

OUTBOX_NAME = "chain.db"


@contextmanager
def open_rpc(config: ChainConfig) -> Iterator[Rpc]:
    rpc = Rpc(config)
    try:
        yield rpc
    finally:
        rpc.close()


@contextmanager
def open_sender(config: ChainConfig, signer: Signer, outbox_path: Path | None) -> Iterator[Sender]:
    """A Sender on the node's chain; its outbox at `outbox_path` (None: in memory)."""
    with open_rpc(config) as rpc:
        chain_id = rpc.chain_id()
        outbox = Outbox(outbox_path, chain_id, signer.address)
        try:
            yield Sender(rpc, config, signer, outbox, chain_id)
        finally:
            outbox.close()
