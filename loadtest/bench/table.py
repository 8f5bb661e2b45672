"""A benchmark's result for reading: rich tables, and the same as Markdown for docs/PERFORMANCE.md."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest import marked

Rows = Sequence[Sequence[str]]


def print_tables(console: Console, result: Mapping[str, Any]) -> None:
    """Every table of a result."""
    for title, header, rows in tables(result):
        table = Table(header[0], title=title, title_justify="left")
        for name in header[1:]:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if not result["claim"]["citable"]:
        console.print(f"not to be cited: {'; '.join(result['claim']['not_citable_because'])}", style="bold yellow")


def markdown(result: Mapping[str, Any]) -> str:
    """The same tables, under one line that says where they come from."""
    machine, load = result["machine"], result["load_average"]
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, {machine['date'][:10]}"
    loads = f"load average {load['start']:.2f} at the start, {load['end']:.2f} at the end"
    commit = (machine["commit"] or "unknown")[:12]
    lines = [f"{where}, commit {commit}, setting `{result['claim']['setting']}`, {loads}.", ""]
    if not result["claim"]["citable"]:
        lines += [f"**Not to be cited**: {'; '.join(result['claim']['not_citable_because'])}.", ""]
    for title, header, rows in tables(result):
        lines += [f"**{title}**", "", marked.table(header, rows), ""]
    return "\n".join(lines)


def write_markdown(result: Mapping[str, Any], document: Path) -> None:
    """Replaces the part of a document between `<!-- serving-KIND:begin -->` and `<!-- serving-KIND:end -->`."""
    marked.replace(document, f"serving-{result['claim']['kind']}", markdown(result))


def tables(result: Mapping[str, Any]) -> Iterator[tuple[str, list[str], Rows]]:
    """(title, header, rows) of each table."""
    yield "Targets", ["target", "bound", "measured", "95% interval", "pairs", "verdict"], _targets(result)
    streams = result["workload"]["streams"]
    percentiles = ["TTFT p50", "p95", "p99", "ITL p50", "p95", "p99", "added p50"]
    yield f"{streams} streams (ms)", ["server, adapters, attribution", "tokens/s", *percentiles], _arms(result)
    yield "Ratios of tokens/s", ["", "over", "ratio", "95% interval", "pairs"], _comparisons(result)
    if added := result["added_latency"]:
        yield "One request at a time (ms)", ["TTFT", "p50", "p95", "p99"], _added(added)
    if result["cold"]:
        header = ["adapter with head", "MB", "read ms", "warm TTFT", "cold TTFT p50", "p95", "2 x warm + read"]
        yield "Load to first token (ms)", header, _cold(result["cold"])


def _targets(result: Mapping[str, Any]) -> Rows:
    return [
        [
            one["name"],
            f"{'>=' if one['at_least'] else '<='} {one['bound']:g}",
            f"{one['measured']['value']:.3f}",
            _interval(one["measured"]),
            str(one["measured"]["pairs"]),
            one["verdict"],
        ]
        for one in result["targets"]
    ]


def _arms(result: Mapping[str, Any]) -> Rows:
    return [
        [
            arm["name"],
            f"{arm['tokens_per_second']['median']:.1f}",
            *(_ms(arm[latency][q]) for latency in ("ttft_ms", "itl_ms") for q in ("p50", "p95", "p99")),
            _ms(arm["added_ms"]["p50"]),
        ]
        for arm in result["arms"]
    ]


def _comparisons(result: Mapping[str, Any]) -> Rows:
    return [
        [one["top"], one["bottom"], f"{one['ratio']['value']:.3f}", _interval(one["ratio"]), str(one["ratio"]["pairs"])]
        for one in result["comparisons"]
    ]


def _added(added: Mapping[str, Any]) -> Rows:
    rows = [
        [name, *(_ms(added[key][q]) for q in ("p50", "p95", "p99"))]
        for name, key in (
            ("through the gateway", "gateway_ttft_ms"),
            ("at the engine's socket", "engine_ttft_ms"),
            ("the gateway's own spans", "spans_ms"),
        )
    ]
    difference = added["difference_ms"]
    return [*rows, ["difference, median of pairs", f"{difference['value']:.2f}", _interval(difference), ""]]


def _cold(cold: Mapping[str, Any]) -> Rows:
    return [
        [
            name,
            f"{row['bytes'] / 1e6:.2f}",
            _ms(row["read_ms"]["p50"]),
            _ms(row["warm_ttft_ms"]["p50"]),
            _ms(row["cold_ttft_ms"]["p50"]),
            _ms(row["cold_ttft_ms"]["p95"]),
            _ms(row["bound_ms"]["p50"]),
        ]
        for name, row in cold.items()
    ]


def _interval(value: Mapping[str, Any]) -> str:
    return f"{value['low']:.3f} to {value['high']:.3f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
