"""A bank's outcomes of a set of queries, as `lds` takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adapters.training.bank import Bank
from adapters.training.lds import Outcomes
from adapters.training.progress import Progress, silent
from adapters.training.subsets import FULL, HALF, LEFT_OUT, Run, indicator
from adapters.training.tokens import TokenExample


def outcomes(bank: Bank, queries: Sequence[TokenExample], progress: Progress = silent) -> Outcomes:
    """Summed token margins of each query under every run; its owner is the query's. Raises what `Bank.margins` does."""
    found = bank.margins(queries, bank.runs, progress).double()
    example = torch.tensor([i for i, query in enumerate(queries) for _ in range(sum(query.supervised))])
    summed = sums(found.T, example, len(queries)).T.numpy()
    at = {run: summed[row] for row, run in enumerate(bank.runs)}
    seeds = sorted({run.seed for run in bank.runs})
    everyone = tuple(range(len(bank.subject.contributors)))
    halves = [run.members for run in bank.runs if run.kind == HALF and run.seed == seeds[0]]
    left_out = None
    if any(run.kind == LEFT_OUT for run in bank.runs):
        rest = [tuple(i for i in everyone if i != left) for left in everyone]
        left_out = np.stack([[at[Run(LEFT_OUT, members, seed)] for members in rest] for seed in seeds])
    return Outcomes(
        members=indicator(halves, len(everyone)).numpy(),
        half=np.stack([[at[Run(HALF, members, seed)] for members in halves] for seed in seeds]),
        full=np.stack([at[Run(FULL, everyone, seed)] for seed in seeds]),
        left_out=left_out,
        owner=np.array([query.owner for query in queries]),
    )


def sums(values: Tensor, example: Tensor, count: int) -> Tensor:
    """Sums per text [count, ...] of values per token [N, ...], fp64."""
    total = torch.zeros(count, *values.shape[1:], dtype=torch.float64)
    return total.index_add_(0, example, values.double())
