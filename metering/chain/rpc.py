"""JSON-RPC over HTTP to any EVM node, patient with outages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from metering.chain.config import ChainConfig
from metering.chain.contract import contract, revert_reason
from metering.chain.errors import ChainRefused, ChainUnavailable

BACKOFF_MAX_SECONDS = 5.0
BUSY_STATUSES = (408, 429, 500, 502, 503, 504)
LIMIT_EXCEEDED = -32005  # EIP-1474
KNOWN = ("already known", "already imported", "alreadyknown", "known transaction", "nonce too low")


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction on the node's current chain. Gas in gas units, price in wei."""

    transaction_hash: str
    block_number: int
    block_hash: str
    succeeded: bool
    gas_used: int
    gas_price_wei: int
    contract_address: str | None


class Rpc:
    """A node. Every method may raise ChainUnavailable; what reverts or is refused is ChainRefused."""

    def __init__(self, config: ChainConfig, pause: Callable[[float], None] = time.sleep) -> None:
        self._config = config
        self._pause = pause
        self._client = httpx.Client(timeout=config.request_seconds)

    def close(self) -> None:
        self._client.close()

    def request(self, method: str, *parameters: Any) -> Any:
        """The result member of the answer. Unreachable or busy nodes are asked again for `outage_seconds`."""
        deadline = time.monotonic() + self._config.outage_seconds
        wait_seconds = self._config.backoff_seconds
        while True:
            answer, trouble = self._exchange({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)})
            if answer is not None:
                return _result(answer)
            if time.monotonic() + wait_seconds > deadline:
                raise ChainUnavailable(f"{self._config.node} does not answer {method}: {trouble}")
            self._pause(wait_seconds * random.uniform(0.8, 1.2))
            wait_seconds = min(2 * wait_seconds, BACKOFF_MAX_SECONDS)

    def chain_id(self) -> int:
        return int(self.request("eth_chainId"), 16)

    def head(self) -> int:
        """Number of the newest block."""
        return int(self.request("eth_blockNumber"), 16)

    def time(self) -> int:
        """Time of the newest block, seconds since 1970."""
        return int(self.request("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def code(self, address: str) -> bytes:
        return _bytes(self.request("eth_getCode", address, "latest"))

    def nonce(self, address: str, block: str) -> int:
        """Number of transactions of `address`: mined ones (`latest`), or with waiting ones too (`pending`)."""
        return int(self.request("eth_getTransactionCount", address, block), 16)

    def read(self, name: str, address: str, function: str, *arguments: Any) -> Any:
        """Call a view function of contract `name` at `address` on the newest block."""
        interface = contract(name)
        data = "0x" + interface.call_data(function, *arguments).hex()
        return interface.result(function, _bytes(self.request("eth_call", {"to": address, "data": data}, "latest")))

    def simulate(self, transaction: dict[str, Any], block: int) -> None:
        """Run a transaction on the state after `block`: ChainRefused with the reason when it reverts."""
        self.request("eth_call", transaction, hex(block))

    def estimate_gas(self, transaction: dict[str, Any]) -> int:
        return int(self.request("eth_estimateGas", transaction), 16)

    def fees_wei(self) -> tuple[int, int]:
        """(max fee per gas, priority fee per gas) that survive several full blocks in a row."""
        base = int(self.request("eth_getBlockByNumber", "latest", False).get("baseFeePerGas", "0x0"), 16)
        priority = int(self.request("eth_maxPriorityFeePerGas"), 16)
        return 2 * base + priority, priority

    def broadcast(self, raw: bytes) -> None:
        """Hand a signed transaction to the node. Silent when the node has it already or its nonce is used up."""
        try:
            self.request("eth_sendRawTransaction", "0x" + raw.hex())
        except ChainRefused as error:
            if not any(words in str(error).lower() for words in KNOWN):
                raise

    def receipt(self, transaction_hash: str) -> Receipt | None:
        """None while the transaction is not in a block of the current chain."""
        found = self.request("eth_getTransactionReceipt", transaction_hash)
        if found is None or found.get("blockNumber") is None:
            return None
        return Receipt(
            transaction_hash=transaction_hash,
            block_number=int(found["blockNumber"], 16),
            block_hash=found["blockHash"],
            succeeded=int(found["status"], 16) == 1,
            gas_used=int(found["gasUsed"], 16),
            gas_price_wei=int(found.get("effectiveGasPrice", "0x0"), 16),
            contract_address=found["contractAddress"].lower() if found.get("contractAddress") else None,
        )

    def _exchange(self, body: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """(answer, "") or (None, why to try again). The text never has the URL, which may carry a provider's key."""
        try:
            response = self._client.post(self._config.rpc_url, json=body)
        except httpx.TransportError as error:
            return None, type(error).__name__
        if response.status_code in BUSY_STATUSES:
            return None, f"HTTP {response.status_code}"
        if response.status_code in (401, 403, 404):
            raise ChainRefused("http", f"{self._config.node} answers {response.status_code}; is the URL right?")
        try:
            answer = response.json()
        except ValueError:
            return None, "not JSON"
        if not isinstance(answer, dict) or not ("result" in answer or isinstance(answer.get("error"), dict)):
            return None, "not a JSON-RPC answer"
        if answer.get("error", {}).get("code") == LIMIT_EXCEEDED:
            return None, "rate limit"
        return answer, ""


def _result(answer: dict[str, Any]) -> Any:
    if "error" not in answer:
        return answer["result"]
    error = answer["error"]
    data = error.get("data")
    if isinstance(data, dict):  # some nodes wrap it
        data = data.get("data")
    if isinstance(data, str) and data.startswith("0x") and len(data) >= 10:
        raise ChainRefused(*revert_reason(_bytes(data)))
    raise ChainRefused("node", str(error.get("message", error.get("code"))))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
