"""What commands print: with --json exactly one JSON document on stdout, otherwise text for people."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(as_json: bool, value: Any, text: str | Table) -> None:
    """Prints the value, or its text."""
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    elif isinstance(text, Table):
        Console(highlight=False).print(text)
    else:
        sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def table(rows: Sequence[dict[str, Any]], *columns: str) -> Table:
    """A plain table of some members of each row."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(row.get(column)) for column in columns))
    return drawn


def facts(value: dict[str, Any], *names: str) -> str:
    """name: value lines, of all scalar members or the named ones."""
    chosen = names or [name for name, member in value.items() if not isinstance(member, dict | list)]
    width = max(len(name) for name in chosen)
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {_cell(value.get(name))}" for name in chosen)


def money(nanos: int, currency: str) -> str:
    """Exact decimal text of nanos, without trailing zeros beyond the cents."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    units, rest = divmod(nanos, 1_000_000_000)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{units}.{decimals} {currency}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}={member}" for name, member in value.items())
    return str(value)
