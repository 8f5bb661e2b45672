"""`python -m metering.chain.bench`: gas of every operation on a local node, into docs/results/chain-gas.json.

Gas depends on contracts, compiler and EVM rules only, so two runs agree; a speed is given for building trees alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from metering import merkle
from metering.chain.config import ChainConfig
from metering.chain.contract import ARTIFACTS, contract
from metering.chain.deploy import deploy
from metering.chain.deployment import Deployment
from metering.chain.keys import Signer
from metering.chain.node import CONTRACTS, AnvilNode, install_tools
from metering.chain.registry import datanet_id
from metering.chain.sender import Sender
from metering.chain.session import open_sender
from metering.chain.tree import PayoutTree

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "chain-gas.json"
NODE_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's own, in its manual
ORIGIN = "openledger.local/log"
LOG_SIZES = (500, 1_000, 10_000, 10_500, 100_000, 100_500)  # a settled batch has 500 events
PAYEES = (1, 10, 100, 1_000, 10_000)
DOCUMENT = b"\x01" * 32


class Bench:
    """One deployment on a fresh chain, and the rows measured on it."""

    def __init__(self, sender: Sender, deployment: Deployment) -> None:
        self._sender = sender
        self._deployment = deployment
        self.rows: list[dict[str, Any]] = []

    def measure(self, operation: str, name: str, address: str, function: str, *arguments: Any, **sizes: int) -> None:
        """Send it, wait for its block, note the gas."""
        data = contract(name).call_data(function, *arguments)
        receipt = self._sender.finish(f"{len(self.rows)}/{operation}", address, data)
        self.rows.append({"operation": operation, **sizes, "calldata_bytes": len(data), "gas": receipt.gas_used})

    def anchors(self) -> None:
        """Checkpoints of one growing log, each with its consistency proof."""
        nodes = merkle.MemoryNodes([hashlib.sha256(i.to_bytes(8, "big")).digest() for i in range(LOG_SIZES[-1])])
        old = 0
        for size in LOG_SIZES:
            proof = merkle.consistency_proof(nodes, old, size) if old else []
            root = merkle.tree_root(nodes, size)
            arguments = (ORIGIN, size, root, proof)
            sizes = {"leaves": size, "proof_hashes": len(proof)}
            operation = "anchor a checkpoint" if old else "anchor the first checkpoint"
            self.measure(operation, "CheckpointAnchor", self._deployment.anchor, "anchor", *arguments, **sizes)
            old = size

    def payouts(self) -> None:
        """An epoch for each number of payees: its root, a first claim, a later claim of the same address."""
        distributor = self._deployment.distributor
        funds = 10**12
        self.measure("mint test tokens", "TestToken", self._deployment.token, "mint", distributor, funds)
        again = "0x" + hashlib.sha256(b"again").digest()[:20].hex()
        for epoch, count in enumerate(PAYEES, start=1):
            first = "0x" + hashlib.sha256(f"first {epoch}".encode()).digest()[:20].hex()
            others = {"0x" + hashlib.sha256(b"%d" % i).digest()[:20].hex(): 1_000 for i in range(count - 1)}
            units = {first: 5_000, **others} | ({again: 1_000 * epoch} if count > 1 else {})
            tree = PayoutTree(units)
            arguments = (epoch, tree.root, funds, DOCUMENT)
            self.measure("propose an epoch", "PayoutDistributor", distributor, "propose", *arguments, payees=len(units))
            payees = {"payees": len(units), "proof_hashes": len(tree.proof(first))}
            claim = (first, 5_000, tree.proof(first))
            self.measure("first claim", "PayoutDistributor", distributor, "claim", *claim, **payees)
            if again in units:
                claim = (again, units[again], tree.proof(again))
                operation = "later claim" if epoch > 2 else "first claim"
                self.measure(operation, "PayoutDistributor", distributor, "claim", *claim, **payees)

    def registry(self) -> None:
        address, version, adapter = self._deployment.registry, b"\x02" * 32, b"\x03" * 32
        owner = self._sender.address
        self.measure("register a Datanet", "DatanetRegistry", address, "registerDatanet", "facts", owner)
        facts = datanet_id("facts")
        self.measure("publish a version", "DatanetRegistry", address, "publishVersion", facts, version)
        self.measure("register an adapter", "DatanetRegistry", address, "registerAdapter", facts, version, adapter)
        self.measure("revoke an adapter", "DatanetRegistry", address, "revokeAdapter", adapter)


def tree_seconds(count: int) -> float:
    """Median of three builds of a payout tree, on this machine."""
    units = {"0x" + hashlib.sha256(b"%d" % i).digest()[:20].hex(): i + 1 for i in range(count)}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        PayoutTree(units)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[1]


def run() -> dict[str, Any]:
    """Everything, on a chain of its own."""
    node = AnvilNode(install_tools())
    node.start()
    try:
        config = ChainConfig(node.url, confirmations=1, poll_seconds=0.01)
        with open_sender(config, Signer.from_key(NODE_KEY), None) as sender:
            deployment, receipts = deploy(sender, sender.rpc.chain_id(), "USD", None)
            bench = Bench(sender, deployment)
            bench.anchors()
            bench.payouts()
            bench.registry()
    finally:
        node.stop()
    packages = json.loads((CONTRACTS / "package.json").read_text())
    return {
        "node": "anvil " + packages["optionalDependencies"]["@foundry-rs/anvil-linux-amd64"],
        "compiler": json.loads((ARTIFACTS / "CheckpointAnchor.json").read_text())["compiler"],
        "library": "@openzeppelin/contracts " + packages["dependencies"]["@openzeppelin/contracts"],
        "deployment": {name: receipt.gas_used for name, receipt in receipts.items()},
        "operations": bench.rows,
        "tree_seconds": {str(count): round(tree_seconds(count), 3) for count in (100, 10_000)},
    }


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    lines = [f"{'operation':<32}{'of':>16}{'proof':>7}{'gas':>12}"]
    lines += [f"{'deploy ' + name:<32}{'':>16}{'':>7}{gas:>12,}" for name, gas in results["deployment"].items()]
    for row in results["operations"]:
        size = (
            f"{row['leaves']:,} leaves" if "leaves" in row else f"{row['payees']:,} payees" if "payees" in row else ""
        )
        lines.append(f"{row['operation']:<32}{size:>16}{row.get('proof_hashes', ''):>7}{row['gas']:>12,}")
    lines += [f"build a tree of {count:>6} payees: {seconds} s" for count, seconds in results["tree_seconds"].items()]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m metering.chain.bench", description="Gas of every operation.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    results = run()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
