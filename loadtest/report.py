"""The report of a load test, for reading."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest.generator_cpu import WARN_PERCENT, GeneratorCpu
from loadtest.reconcile import Reconciliation
from loadtest.slo import Verdict


def print_report(
    console: Console,
    run: Mapping[str, Any],
    cpu: GeneratorCpu,
    verdicts: Sequence[Verdict],
    proof: Reconciliation | None,
) -> None:
    """Requests, latencies, objectives, the generator's own CPU, and the reconciliation."""
    console.print(_requests(run))
    console.print(_latencies(run))
    rates = run["rates"]
    console.print(
        f"{run['requests']} requests in {run['seconds']:.1f} s: {rates['requests_per_second']:.2f} requests/s, "
        f"{rates['tokens_per_second']:.1f} tokens/s, {len(run['models'])} models"
    )
    if run["registered"] or run["registration_errors"]:
        console.print(f"registered meanwhile: {run['registered']}, refused: {len(run['registration_errors'])}")
    for error, count in [*run["errors"], *((text, 1) for text in run["registration_errors"][:3])]:
        console.print(f"  {count} x {error}", style="red", markup=False, highlight=False)
    console.print(f"load generator: {cpu.mean:.0f}% of one core, at most {cpu.highest:.0f}%")
    if cpu.is_too_busy:
        console.print(f"above {WARN_PERCENT:.0f}%: latencies hold the generator's own delays", style="bold yellow")
    if verdicts:
        console.print(_objectives(verdicts))
    if proof:
        _print_proof(console, proof)


def _requests(run: Mapping[str, Any]) -> Table:
    table = Table("behaviour", title="Requests", title_justify="left")
    for name in ("requests", "failed", "left", "tokens"):
        table.add_column(name, justify="right")
    for name, row in run["behaviours"].items():
        table.add_row(name, *(str(row.get(column, 0)) for column in ("requests", "failed", "left", "tokens")))
    return table


def _latencies(run: Mapping[str, Any]) -> Table:
    table = Table("ms", title="Latencies", title_justify="left")
    columns = ("count", "mean", "p50", "p95", "p99", "max")
    for name in columns:
        table.add_column(name, justify="right")
    for name, row in run["latencies_ms"].items():
        table.add_row(name, *(_number(row[column]) for column in columns))
    return table


def _objectives(verdicts: Sequence[Verdict]) -> Table:
    table = Table("objective", title="Service level", title_justify="left")
    for name in ("bound", "measured", ""):
        table.add_column(name, justify="right")
    for one in verdicts:
        mark = "[green]met[/]" if one.met else "[bold red]missed[/]"
        table.add_row(one.name, f"{one.bound:g}", _number(one.measured), mark)
    return table


def _print_proof(console: Console, proof: Reconciliation) -> None:
    table = Table("ended", title="Reconciliation", title_justify="left")
    for name in ("requests", "tokens seen", "tokens billed"):
        table.add_column(name, justify="right")
    for kind in sorted(proof.requests):
        numbers = proof.requests[kind], proof.tokens_seen[kind], proof.tokens_billed[kind]
        table.add_row(kind, *map(str, numbers))
    console.print(table)
    if proof.clean:
        console.print(f"reconciled: {'; '.join(proof.compared)}", style="bold green")
        return
    console.print(f"DOES NOT RECONCILE: {len(proof.findings)} findings", style="bold red")
    for name, count in Counter(finding.name for finding in proof.findings).most_common():
        console.print(f"  {count} x {name}, for example:", markup=False, highlight=False)
        finding = next(one for one in proof.findings if one.name == name)
        console.print(f"    {finding.detail}", markup=False, highlight=False)


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}" if value < 10 else f"{value:.1f}"
