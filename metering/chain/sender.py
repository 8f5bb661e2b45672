"""Transactions made to happen once: signed, stored, sent, followed through reorganisations until they are final."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eth_utils import to_checksum_address

from metering.chain.config import ChainConfig
from metering.chain.errors import ChainRefused, NotFinal
from metering.chain.keys import Signer
from metering.chain.outbox import Entry, Outbox, new_attempt
from metering.chain.rpc import Receipt, Rpc

GAS_MARGIN_PERCENT = 20  # above the estimate: state may move between estimate and block
BUMP_PERCENT = 25  # nodes replace a waiting transaction for 10 % more


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a transaction is: `pending`, `mined` (in a block) or `final` (with enough confirmations)."""

    state: str
    transaction_hash: str
    receipt: Receipt | None
    confirmations: int


class Sender:
    """One signer's transactions on one chain. One Sender per signer and outbox at a time."""

    def __init__(
        self,
        rpc: Rpc,
        config: ChainConfig,
        signer: Signer,
        outbox: Outbox,
        chain_id: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rpc = rpc
        self.address = signer.address
        self._config = config
        self._signer = signer
        self._outbox = outbox
        self._chain_id = chain_id
        self._pause = pause

    def known(self, key: str) -> bool:
        """True when a transaction of that key was signed before."""
        return self._outbox.find(key) is not None

    def ensure(self, key: str, receiver: str | None, data: bytes) -> Progress:
        """Bring the transaction called `key` one step on; safe to repeat at any moment, in any process.

        New: simulate, sign, store, send. Waiting or dropped by a reorganisation: send the same bytes again, with a
        higher fee when it waits too long. Nonce used up by something else: sign anew. ChainRefused when it reverts.
        """
        entry = self._outbox.find(key)
        if entry is None or entry.state == "failed":
            entry = self._sign(key, receiver, data)
        receipt = self._receipt(entry)
        if receipt is None and self.rpc.nonce(self.address, "latest") > entry.nonce:
            receipt = self._receipt(entry)  # it may have been mined between the two questions
            if receipt is None:
                entry = self._sign(key, receiver, data)
        if receipt is None:
            return self._send(entry)
        if not receipt.succeeded:
            self._outbox.set_state(entry, "failed")
            self.rpc.simulate(self._call(entry.receiver, entry.data), receipt.block_number)
            raise ChainRefused("failed", f"transaction {receipt.transaction_hash} reverted")
        confirmations = self.rpc.head() - receipt.block_number + 1
        final = confirmations >= self._config.confirmations
        self._outbox.set_state(entry, "final" if final else "mined")
        return Progress(entry.state, receipt.transaction_hash, receipt, confirmations)

    def finish(self, key: str, receiver: str | None, data: bytes, until: str = "final") -> Receipt:
        """`ensure` until the transaction is `final` (or `mined`). NotFinal when that takes longer than it may."""
        deadline = time.monotonic() + self._config.final_seconds
        while True:
            progress = self.ensure(key, receiver, data)
            if progress.receipt is not None and until in (progress.state, "mined"):
                return progress.receipt
            if time.monotonic() > deadline:
                raise NotFinal(f"{key} is {progress.state} as {progress.transaction_hash}; run again to go on waiting")
            self._pause(self._config.poll_seconds)

    def _sign(self, key: str, receiver: str | None, data: bytes) -> Entry:
        estimate = self.rpc.estimate_gas(self._call(receiver, data))  # reverts show here, before anything is signed
        gas = estimate * (100 + GAS_MARGIN_PERCENT) // 100
        nonce = max(self.rpc.nonce(self.address, "pending"), self._outbox.next_nonce())
        max_fee_wei, priority_fee_wei = self.rpc.fees_wei()
        signed = self._signer.sign_transaction(self._fields(receiver, data, nonce, gas, max_fee_wei, priority_fee_wei))
        return self._outbox.put(key, receiver, data, nonce, gas, new_attempt(signed, max_fee_wei, priority_fee_wei))

    def _send(self, entry: Entry) -> Progress:
        last = entry.attempts[-1]
        if time.time_ns() // 1000 - last.time_us > self._config.replace_seconds * 1e6:
            market = self.rpc.fees_wei()
            max_fee_wei, priority_fee_wei = max(_bumped(last.max_fee_wei), market[0]), _bumped(last.priority_fee_wei)
            fields = self._fields(entry.receiver, entry.data, entry.nonce, entry.gas, max_fee_wei, priority_fee_wei)
            last = new_attempt(self._signer.sign_transaction(fields), max_fee_wei, priority_fee_wei)
            self._outbox.add_attempt(entry, last)
        self._outbox.set_state(entry, "pending")
        for earlier in self._outbox.between(self.rpc.nonce(self.address, "latest"), entry.nonce):
            self.rpc.broadcast(earlier.attempts[-1].raw)  # dropped too, and this one cannot be mined before it
        self.rpc.broadcast(last.raw)
        return Progress("pending", last.hash, None, 0)

    def _receipt(self, entry: Entry) -> Receipt | None:
        for attempt in reversed(entry.attempts):
            receipt = self.rpc.receipt(attempt.hash)
            if receipt is not None:
                return receipt
        return None

    def _call(self, receiver: str | None, data: bytes) -> dict[str, Any]:
        call = {"from": self.address, "data": "0x" + data.hex()}
        return call | ({"to": receiver} if receiver else {})

    def _fields(
        self, receiver: str | None, data: bytes, nonce: int, gas: int, max_fee_wei: int, priority_fee_wei: int
    ) -> dict[str, Any]:
        """EIP-1559."""
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": max_fee_wei,
            "maxPriorityFeePerGas": priority_fee_wei,
            "value": 0,
            "data": data,
        }
        return fields | ({"to": to_checksum_address(receiver)} if receiver else {})


def _bumped(fee_wei: int) -> int:
    return fee_wei + max(1, fee_wei * BUMP_PERCENT // 100)
