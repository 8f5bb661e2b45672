"""A load test's report in the repository: docs/results/loadtest-<kind>.json and its tables in docs/PERFORMANCE.md."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from loadtest import marked
from loadtest.bench import machine

DOCS = Path(__file__).parents[1] / "docs"


def publish(report: Mapping[str, Any], kind: str, load: Mapping[str, float], docs: Path = DOCS) -> Path:
    """Writes both; `kind` is cpu or gpu, `load` the machine's load average at the start and at the end."""
    measured = {"machine": machine.describe(kind), "load_average": load, **report}
    path = docs / "results" / f"loadtest-{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(measured, option=orjson.OPT_INDENT_2) + b"\n")
    marked.replace(docs / "PERFORMANCE.md", f"loadtest-{kind}", "\n".join(_lines(measured)))
    return path


def _lines(run: Mapping[str, Any]) -> Iterator[str]:
    where, load, rates, proof = run["machine"], run["load_average"], run["rates"], run["reconciliation"]
    generator = run["generator_cpu_percent"]
    yield (
        f"{where['gpu'] or where['cpu']}, {where['cores']} cores, {where['date'][:10]}, commit"
        f" {(where['commit'] or 'unknown')[:12]}; load average {load['start']:.2f} at the start, {load['end']:.2f} at"
        " the end."
    )
    yield (
        f"{run['shape']}, {run['seconds']:.0f} s: {run['requests']} requests of {len(run['models'])} models,"
        f" {rates['requests_per_second']:.2f} requests/s, {rates['tokens_per_second']:.1f} tokens/s, error rate"
        f" {rates['error_rate']:.3f}; load generator {generator['mean']:.0f}% of a core."
    )
    yield ""
    names = ("p50", "p95", "p99", "max")
    rows = [
        [name, str(row["count"]), *("-" if row[q] is None else f"{row[q]:.0f}" for q in names)]
        for name, row in run["latencies_ms"].items()
    ]
    yield marked.table(["ms", "count", *names], rows)
    yield ""
    if proof is None:
        yield "Not reconciled."
        return
    kinds = sorted(proof["requests"])
    counted = [[k, *(str(proof[c][k]) for c in ("requests", "tokens_seen", "tokens_billed"))] for k in kinds]
    yield marked.table(["ended", "requests", "tokens seen", "tokens billed"], counted)
    yield ""
    compared = "; ".join(proof["compared"])
    yield (
        f"Reconciled: {compared}." if proof["clean"] else f"**Does not reconcile**: {proof['findings_count']} findings."
    )
