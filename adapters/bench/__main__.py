"""python -m adapters.bench world|peers: make a world of a benchmark Datanet, and let the peers score it.

world DATANET --base DIR --out DIR     fetch, export, train and write DIR/DATANET-world (twenty-sources or
                                       invented-facts)
peers WORLD [--rows a,b] [--json]      score it; finished rows are reused
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.bench import text
from adapters.bench.peer_rows import CACHE_DIR, peer_rows
from adapters.bench.table import measured, table
from adapters.bench.world import write_world
from adapters.demo import facts
from adapters.demo.export import write_export
from adapters.training.progress import TerminalBar
from adapters.training.train import train_adapter


def build_world(datanet: str, base_dir: Path, out_dir: Path, segments: int = 8, threads: int = 2) -> Path:
    """The world of a benchmark Datanet under `out_dir`: what is there already is used again."""
    bar = TerminalBar()
    debian = CACHE_DIR.parent / "debian"
    if datanet == text.DATANET:
        given, config = list(text.contributions(debian)), text.TRAINING_CONFIG
        questions = text.heldout_questions(debian)
    else:
        given, questions, config = list(facts.contributions()), facts.heldout_questions(), facts.TRAINING_CONFIG
    export, package = out_dir / f"{datanet}-export", out_dir / datanet
    if not export.exists():
        write_export(datanet, given, export)
    config = replace(config, threads=threads)
    train_adapter(export, base_dir, package, seed=0, config=config, trainer="demo", host="demo", progress=bar)
    world = out_dir / f"{datanet}-world"
    return write_world(world, export, package, base_dir, questions, segments=segments, progress=bar)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m adapters.bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    world = commands.add_parser("world", help="train on a benchmark Datanet and write its world")
    world.add_argument("datanet", choices=(text.DATANET, facts.DATANET))
    world.add_argument("--base", type=Path, required=True, help="base model directory")
    world.add_argument("--out", type=Path, required=True)
    world.add_argument("--segments", type=int, default=8, help="points of the run that are kept; 1 takes no replay")
    world.add_argument("--threads", type=int, default=2)
    peers = commands.add_parser("peers", help="score a world by every known method")
    peers.add_argument("world", type=Path)
    peers.add_argument("--rows", help="comma-separated names; all when left out")
    peers.add_argument("--threads", type=int, default=2)
    peers.add_argument("--limit", type=int, help="seconds a row may take, instead of its own limit")
    peers.add_argument("--json", action="store_true")
    given: Any = parser.parse_args()
    if given.command == "world":
        print(build_world(given.datanet, given.base, given.out, given.segments, given.threads))
        return
    rows = given.rows.split(",") if given.rows else None
    found = peer_rows(given.world, rows, threads=given.threads, limit_s=given.limit, progress=TerminalBar())
    report = measured(given.world, found)
    print(json.dumps(report) if given.json else table(report))


if __name__ == "__main__":
    main()
