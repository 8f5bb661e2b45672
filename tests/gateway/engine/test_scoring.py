"""Scores of one engine step, against the equation computed row by row."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gateway.engine.heads import HEAD_FILE, HeadStore, read_head
from gateway.engine.scoring import MICRO_NATS, SampledRequest, StepScorer
from gateway.engine.taps import TapBuffer
from kernels.reference import RARE

D, VOCAB, TOKENS, RANK = 10, 25, 12, 4
NAMES = ["a", "b", "c", "d"]


def write_head(
    directory: Path, seed: int, contributors: list[str], taps: list[str], k: int, *, d: int = 0, m: int = 0
) -> Path:
    """With `d`, tap directions; with `m`, contributor factors."""
    directory.mkdir()
    torch.manual_seed(seed)
    tensors = {"K": torch.randn(m or len(contributors), *((1, k, d) if d else (len(taps), k, RANK)))}
    tensors |= {"P": torch.randn(D, k)}
    tensors |= {"H": torch.randn(len(taps), RANK, d)} if d else {}
    tensors |= {"Q": torch.randn(len(contributors), m)} if m else {}
    metadata = {
        "format": "openledger-head/1",
        "taps": json.dumps(taps),
        "contributors": json.dumps(contributors),
    }
    save_file(tensors, directory / HEAD_FILE, metadata)
    return directory


@pytest.fixture
def step(tmp_path: Path):
    """Five heads (two of one shape, two with tap directions, one with factors, which the worker leaves out) and a step
    of nine logits rows."""
    torch.manual_seed(1)
    unembedding, g = torch.randn(VOCAB, D), torch.rand(D) + 0.5
    taps = TapBuffer(NAMES, {}, TOKENS, RANK)
    taps.h.normal_()
    heads = HeadStore(unembedding, g, taps.index)
    packages = {
        1: write_head(tmp_path / "1", 1, ["x", "y"], ["b", "d"], 3),
        2: write_head(tmp_path / "2", 2, ["x", "y", "z"], ["b", "d"], 3),
        3: write_head(tmp_path / "3", 3, [f"c{i}" for i in range(9)], ["c"], 5),
        4: write_head(tmp_path / "4", 4, ["x", "y"], ["a", "d"], 5, d=6),
        5: write_head(tmp_path / "5", 5, [f"c{i}" for i in range(9)], ["a", "d"], 5, d=2, m=3),
    }
    for adapter_id, package in packages.items():
        heads.load(adapter_id, package, dict.fromkeys(NAMES, RANK))
    return StepScorer(heads, taps), packages, unembedding.double(), g.double()


def expected(package: Path, W_U, g, z, n, h, y: int) -> torch.Tensor:
    """The equation of docs/ARCHITECTURE.md for one token, in fp64."""
    head = read_head(package)
    assert head is not None
    masked = z.clone()
    masked[y] = -torch.inf
    q = masked.softmax(0)
    w = q * (q / RARE - 1).clamp(0, 1)
    u = g * (W_U[y] - w @ W_U - (1 - w.sum()) * W_U.mean(0)) - (z[y] - q @ z) / D * n / g
    rows = torch.stack([h[NAMES.index(tap)].double() for tap in head.taps])
    if head.H is not None:
        rows = (head.H.double() @ rows.flatten())[None]
    return torch.einsum("k,clkr,lr->c", head.P.double() @ u, head.K.double(), rows)


def test_every_row_is_scored_by_its_own_head_whatever_shares_the_step(step) -> None:
    """Mixed adapters, two of one shape, one of another, a base request and one with draft tokens: all rows exact."""
    scorer, packages, W_U, g = step
    requests = [
        SampledRequest("p", 0, 0, 1, 1),
        SampledRequest("drafts", 2, 2, 3, 2),
        SampledRequest("q", 3, 5, 1, 3),
        SampledRequest("unknown", 4, 6, 1, 99),
        SampledRequest("narrow", 5, 7, 1, 4),
        SampledRequest("factored", 6, 8, 1, 5),
    ]
    logits, normed = 4 * torch.randn(9, VOCAB), torch.randn(9, D)
    raw = logits.clone()
    positions = torch.tensor([3, 4, 0, 1, 2, 9, 11, 5, 6])
    scorer.capture(requests, logits, normed, positions)
    logits.fill_(torch.nan)  # the sampler changes them in place
    sampled = torch.full((7, 3), -1)
    sampled[:, 0] = torch.tensor([5, 1, 7, 24, 0, 9, 3])
    sampled[2, 1] = 8
    scorer.score(sampled)
    result = scorer.take()
    assert result is not None
    assert scorer.take() is None
    emitted = {0: [5], 1: [7, 8], 2: [24], 4: [9], 5: [3]}
    for request, tokens in ((requests[at], tokens) for at, tokens in emitted.items()):
        got = result.of(request.request_id, len(tokens))
        for i, token in enumerate(tokens):
            row = request.first_row + i
            h = scorer.taps.h[:, positions[row]].double()
            want = expected(packages[request.adapter_id], W_U, g, raw[row].double(), normed[row].double(), h, token)
            np.testing.assert_allclose(got[i] / MICRO_NATS, want, rtol=2e-5, atol=2e-6)
    assert result.of("unknown", 1) is None


def test_a_step_without_scored_rows_has_no_scores(step) -> None:
    """Base requests and adapters without head leave nothing behind, also not the previous step's scores."""
    scorer, *_ = step
    request = SampledRequest("p", 0, 0, 1, 1)
    scorer.capture([request], torch.randn(1, VOCAB), torch.randn(1, D), torch.tensor([0]))
    scorer.score(torch.tensor([[3]]))
    scorer.capture([], torch.randn(1, VOCAB), torch.randn(1, D), torch.tensor([0]))
    scorer.score(torch.tensor([[3]]))
    assert scorer.take() is None
