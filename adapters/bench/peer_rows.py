"""Score a world by every row: one process a row, within its time, kept when finished, the reason kept when not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from adapters.bench.environments import EnvironmentFailed, environment, variables
from adapters.bench.errors import BadWorld, UnknownRow
from adapters.bench.peers.reader import World
from adapters.bench.peers.result import read_result
from adapters.bench.peers.run import score_row
from adapters.bench.rows import ROWS
from adapters.training.progress import Progress, silent

CACHE_DIR = Path(".cache/peers")


def peer_rows(
    world_dir: Path,
    rows: Sequence[str] | None = None,
    *,
    cache_dir: Path = CACHE_DIR,
    threads: int = 2,
    limit_s: int | None = None,
    progress: Progress = silent,
) -> dict[str, tuple[Tensor | None, dict[str, Any]]]:
    """(scores [Q, C] or None, facts) of each row; without scores, facts["reason"] says why there are none.

    A row scored before for the same adapter is read again; one that failed is tried again. Queries are in the order of
    queries.jsonl, contributors in that of world.json. `limit_s` replaces every row's own limit. Raises BadWorld,
    UnknownRow.
    """
    weights = _weights(world_dir)
    chosen = list(ROWS if rows is None else rows)
    unknown = [name for name in chosen if name not in ROWS]
    if unknown:
        raise UnknownRow(f"no row {unknown[0]}; there are {', '.join(ROWS)}")
    found: dict[str, tuple[Tensor | None, dict[str, Any]]] = {}
    for done, name in enumerate(chosen):
        progress("peers", done, len(chosen), name)
        found[name] = _finished(world_dir, name, weights) or _score(world_dir, name, cache_dir, threads, limit_s)
    progress("peers", len(chosen), len(chosen), "")
    return found


def _weights(world_dir: Path) -> str:
    try:
        return str(json.loads((world_dir / "world.json").read_text())["weights"])
    except (OSError, ValueError, KeyError):
        raise BadWorld(f"{world_dir} holds no world.json of a world") from None


def _finished(world_dir: Path, name: str, weights: str) -> tuple[Tensor, dict[str, Any]] | None:
    path = world_dir / "peers" / f"{name}.safetensors"
    if not path.is_file():
        return None
    scores, facts = read_result(path)
    return (scores, facts) if facts["weights"] == weights else None


def _score(
    world_dir: Path, name: str, cache_dir: Path, threads: int, limit_s: int | None
) -> tuple[Tensor | None, dict[str, Any]]:
    row = ROWS[name]
    peers = world_dir / "peers"
    peers.mkdir(exist_ok=True)
    limit = row.limit_s if limit_s is None else limit_s
    reason_file, out = peers / f"{name}.json", peers / f"{name}.safetensors"
    try:
        if row.module == "constants":
            score_row(name, World(world_dir), out)  # no model and no library: not worth a process
        else:
            folder = environment(row.environment, cache_dir) if row.environment else None
            _run(name, world_dir, out, folder, threads, limit)
    except (EnvironmentFailed, _Failed) as problem:
        reason = {"reason": str(problem), "limit_s": limit}
        reason_file.write_text(json.dumps(reason) + "\n")
        return None, reason
    reason_file.unlink(missing_ok=True)
    return read_result(out)


class _Failed(Exception):
    """A row's process ended without scores."""


def _run(name: str, world_dir: Path, out: Path, folder: Path | None, threads: int, limit_s: int) -> None:
    places = [str(world_dir.resolve()), str(out.resolve())]
    command = [sys.executable, "-m", "adapters.bench.peers.run", name, *places, str(threads)]
    try:
        with tempfile.TemporaryDirectory() as scratch:  # some libraries leave files where they run
            done = subprocess.run(
                command,
                env=variables(folder),
                cwd=scratch,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise _Failed(f"not done after {limit_s} s") from None
    (out.parent / f"{name}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise _Failed(lines[-1].strip() if lines else f"exit status {done.returncode}")
