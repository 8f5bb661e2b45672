"""The parts of a document that a measurement writes: between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from collections.abc import Sequence
from pathlib import Path


def replace(document: Path, name: str, text: str) -> None:
    """Puts `text` between the marks. Raises ValueError where the document has none."""
    begin, end = (f"<!-- {name}:{edge} -->" for edge in ("begin", "end"))
    before, _, rest = document.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{document} lacks {begin} ... {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
