"""Measures of attribution against values worked out by hand."""

import math

import pytest
import torch

from adapters.training.baselines import bm25, data_size, oracle, uniform
from adapters.training.measures import mean_reciprocal_rank, pearson, ranks, recall_at_1


def test_ranks_put_ties_in_the_middle() -> None:
    """Best is 1; two tied for the first place rank 1.5; all four tied rank 2.5."""
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [5.0, 5.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert ranks(scores, [2, 0, 1]).tolist() == [2.0, 1.5, 2.5]


def test_baselines_score_what_chance_gives() -> None:
    """The oracle is always right, a constant answer 1/C, data size the share of the largest contributor."""
    truth = [0, 1, 1, 2]
    assert recall_at_1(oracle(truth, 4), truth).value == 1.0
    assert mean_reciprocal_rank(oracle(truth, 4), truth).value == 1.0
    assert recall_at_1(uniform(4, 4), truth).value == 0.25
    assert recall_at_1(data_size(4, [5, 9, 1, 1]), truth).value == 0.5


def test_wilson_interval() -> None:
    """8 of 10: 0.490 to 0.943, Wilson 1927."""
    scores = torch.eye(2, dtype=torch.float64)[torch.tensor([0] * 8 + [1] * 2)]
    estimate = recall_at_1(scores, [0] * 10)
    assert (estimate.value, round(estimate.low, 3), round(estimate.high, 3)) == (0.8, 0.49, 0.943)


def test_pearson_is_torchs() -> None:
    """The same number as torch.corrcoef on the flattened tables, inside its own interval."""
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(80, 3, generator=draw)
    b = a + torch.randn(80, 3, generator=draw)
    estimate = pearson(a, b, torch.arange(80) // 4)
    expected = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1]
    assert estimate.value == pytest.approx(float(expected))
    assert estimate.low < estimate.value < estimate.high


def test_bm25_by_hand() -> None:
    """One query word in one of two documents of mean length: its idf, for the owner of that document."""
    scores = bm25(["red hat"], ["red coat", "blue coat"], [1, 0], 3)
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert scores[0].tolist() == pytest.approx([0.0, idf, 0.0])
