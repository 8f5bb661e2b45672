"""`make bench-ledger`: what the meter does in a second, beside raw inserts and plain SQL on the same store."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from metering.bench.bus import bus_rates
from metering.bench.cases import (
    invoice_seconds,
    journal_rates,
    memory_growth,
    proof_latencies,
    request_latencies,
    settlement_rates,
)
from metering.bench.server import postgres, schema_url
from metering.config import MeteringConfig
from metering.ledger import Ledger
from metering.process import calm_collector

TARGETS = {  # at least, for rates; at most, for times
    "journal": 50_000, "sqlite.settled": 20_000, "postgresql.settled": 10_000, "hold_and_event_us": 300,
    "receipt_us": 1_000, "proof_verify_us": 100, "invoice_s": 5,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m metering.bench", description=__doc__)
    parser.add_argument("--events", type=int, default=16_000, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=MeteringConfig(Path()).batch_size, help="events in a transaction")
    parser.add_argument("--invoice-events", type=int, default=1_000_000)
    parser.add_argument("--memory-events", type=int, default=10_000, help="between two looks at the memory")
    parser.add_argument("--memory-rounds", type=int, default=10)
    parser.add_argument("--memory-only", action="store_true", help="measure nothing but the memory")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    document = {"settings": {name: value for name, value in vars(options).items() if name != "out"}, **machine()}
    with tempfile.TemporaryDirectory(prefix="openledger-bench-", dir=".") as directory:
        document["results"] = measure(Path(directory), options)
    document["load_average_after"] = os.getloadavg()
    show(document)
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def measure(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    def config(name: str, url: str = "") -> MeteringConfig:
        return MeteringConfig(directory / name, ledger_url=url, min_free_bytes=1, batch_size=options.batch)

    if options.memory_only:
        return {"resident_kib": memory_growth(config("memory"), options.memory_events, options.memory_rounds)}
    calm_collector()  # as the settler's process does
    results: dict[str, Any] = {"journal": journal_rates(config("journal"), options.events, options.rounds)}
    embedded = config("sqlite")
    results["sqlite"] = settlement_rates(embedded, config("rivals"), options.events, options.rounds)
    with postgres() as url:
        server = config("server", schema_url(url, "ours"))
        others = config("server-rivals", schema_url(url, "rivals"))
        results["postgresql"] = settlement_rates(server, others, options.events, options.rounds)
        bus = config("bus", schema_url(url, "bus"))
        results["nats"] = bus_rates(bus, directory / "nats", options.events, options.rounds)
    ledger = Ledger.open(embedded)
    results |= request_latencies(ledger, embedded)
    results |= proof_latencies(ledger, embedded, options.events * options.rounds)
    results["invoice_s"] = invoice_seconds(ledger, options.invoice_events)
    ledger.close()
    results["resident_kib"] = memory_growth(config("memory"), options.memory_events, options.memory_rounds)
    return results


def machine() -> dict[str, Any]:
    """When, where, which code, and how busy it was."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{models[0].split(':')[1].strip() if models else platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "commit": commit,
        "load_average": os.getloadavg(),
    }


def show(document: dict[str, Any]) -> None:
    results = document["results"]
    table = Table(title=f"{document['machine']}, load {document['load_average'][0]:.1f}, {document['commit'][:9]}")
    for column in ("measured", "median", "lowest", "highest", "target", "of raw inserts", "of row inserts"):
        table.add_column(column, justify="left" if column == "measured" else "right")
    rates = {name: results[name] for name in ("journal",) if name in results}
    for store in ("sqlite", "postgresql", "nats"):
        rates |= {f"{store}.{name}": values for name, values in results.get(store, {}).items()}
    for name, values in rates.items():
        paired = results.get(name.partition(".")[0])
        shares = [_share(values, paired, rival) for rival in ("raw_inserts", "row_inserts")]
        low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
        table.add_row(f"{name}, events/s", f"{median(values):,.0f}", low, high, _target(name), *shares)
    for name in (name for name in results if name.endswith(("_us", "_s"))):
        table.add_row(name, f"{results[name]:,.2f}", "-", "-", _target(name), "-", "-")
    for events, size in results["resident_kib"].items():
        now, peak = (f"{size[name] / 1024:,.1f}" for name in ("now", "peak"))
        table.add_row(f"resident after {events:,} events, MiB", now, "-", peak, "flat", "-", "-")
    Console(width=120).print(table)


def _share(values: list[float], paired: Any, rival: str) -> str:
    """Median, lowest and highest ratio to the rival's rate in the same round."""
    if not isinstance(paired, dict) or rival not in paired:
        return "-"
    ratios = [ours / theirs for ours, theirs in zip(values, paired[rival], strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _target(name: str) -> str:
    return f"{TARGETS[name]:,}" if name in TARGETS else "-"


if __name__ == "__main__":
    raise SystemExit(main())
