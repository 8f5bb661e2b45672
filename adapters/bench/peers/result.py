"""What a row hands back, and the file it becomes: `scores` [Q, C] in safetensors, everything else as its metadata."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Result:
    """Scores [Q, C] fp64, higher is more influence, and what they cost.

    target: what is attributed ("margin", "log p", or "none" where no model is asked). build_seconds: what is done once
    for a Datanet; score_seconds: what is done for the queries. bytes_stored: what has to be kept to score a new query,
    beside the model. forward_only: scoring a query needs no backward pass.
    """

    scores: Tensor
    library: str
    version: str
    target: str
    build_seconds: float
    score_seconds: float
    bytes_stored: int
    forward_only: bool
    note: str = ""


class Stopwatch:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        elapsed, self._last = now - self._last, now
        return elapsed


def write_result(path: Path, result: Result, query_tokens: int, weights: str) -> None:
    """Write `path` whole or not at all; `weights` is the digest of the adapter that was scored."""
    facts = {name: value for name, value in asdict(result).items() if name != "scores"}
    facts["microseconds_per_scored_token"] = round(1e6 * result.score_seconds / query_tokens, 1)
    facts["weights"] = weights
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({"scores": result.scores.double().contiguous()}, temporary, {"row": json.dumps(facts, sort_keys=True)})
    temporary.replace(path)


def read_result(path: Path) -> tuple[Tensor, dict[str, Any]]:
    """Scores [Q, C] and the other members of the row."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("scores"), json.loads(file.metadata()["row"])
