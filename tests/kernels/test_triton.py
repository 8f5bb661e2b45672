"""The Triton kernels in Triton's interpreter, at sizes that fit no block, against the fp64 reference."""

import pytest
import torch

from kernels import checks, readout, sampled, scores, trace

FP32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    ("n", "V", "D", "dtype"),
    [
        (1, 3, 1, FP32),
        (3, 1001, 117, FP32),
        (17, 65, 5, FP32),
        (37, 517, 600, BF16),
        (1, 9001, 64, BF16),
        (2, 20011, 16, FP32),
        (16, 64, 512, BF16),
    ],
)
def test_readout(interpreted, n, V, D, dtype):
    """u and margin are within rounding at odd sizes: one share or many, one token tile or several, D over one block,
    words chosen in many shares and in none, and an emitted token 60 nats above the rest."""
    assert interpreted(checks.readout_error, readout.readout, n=n, V=V, D=D, dtype=dtype) <= 1


@pytest.mark.parametrize(
    ("n", "slots", "a", "b", "dtype"), [(1, 1, 1, 1, FP32), (70, 9, 65, 33, FP32), (33, 40, 130, 3, BF16)]
)
def test_head_products(interpreted, n, slots, a, b, dtype):
    """Each token meets its own head's matrix; without head its product is 0 and its row is never read."""
    assert interpreted(checks.products_error, scores.head_products, n=n, slots=slots, a=a, b=b, dtype=dtype) <= 1


@pytest.mark.parametrize(
    ("n", "slots", "m", "taps", "k", "r", "active", "dtype"),
    [
        (1, 1, 1, 1, 1, 1, 1, FP32),
        (5, 3, 7, 3, 7, 5, 3, FP32),
        (70, 9, 65, 2, 33, 6, 4, BF16),
        (40, 2, 3, 3, 70, 130, 1, FP32),
        (33, 300, 2, 2, 5, 3, 300, FP32),
        (129, 40, 3, 9, 16, 8, 40, BF16),
    ],
)
def test_attribution_scores(interpreted, n, slots, m, taps, k, r, active, dtype):
    """Scores of mixed adapters are within rounding: slots without tokens, segments over one tile, more slots than
    tokens, k over one block, more taps than one share; tokens without head score 0 and their rows are never read."""
    sizes = {"n": n, "slots": slots, "m": m, "taps": taps, "k": k, "r": r, "active": active, "dtype": dtype}
    assert interpreted(checks.scores_error, scores.attribution_scores, **sizes) <= 1


@pytest.mark.parametrize(
    ("contributors", "examples", "size", "dtype"),
    [(1, 1, 1, FP32), (5, 13, 519, FP32), (3, 8, 300, BF16), (40, 2, 256, FP32)],
)
def test_trace_update(interpreted, contributors, examples, size, dtype):
    """The fused step is within rounding: contributors without an example, padding full of NaN, a ragged last block."""
    sizes = {"contributors": contributors, "examples": examples, "size": size, "dtype": dtype}
    assert interpreted(checks.trace_error, trace.trace_update, **sizes) <= 1


@pytest.mark.parametrize(
    ("n", "slots", "m", "taps", "k", "r", "D", "d", "dtype"),
    [
        (1, 1, 1, 1, 1, 1, 1, 1, FP32),
        (40, 9, 65, 7, 33, 6, 517, 5, FP32),
        (33, 3, 5, 9, 70, 3, 130, 9, BF16),
        (7, 2, 4, 3, 5, 6, 40, None, FP32),
    ],
)
def test_head_scores(interpreted, n, slots, m, taps, k, r, D, d, dtype):
    """Scores through narrowed u and h are within rounding: one share of the columns or many, k over one block, heads
    that narrow u only; tokens without head score 0 and their rows are never read."""
    sizes = {"n": n, "slots": slots, "m": m, "taps": taps, "k": k, "r": r, "D": D, "d": d, "dtype": dtype}
    assert interpreted(checks.head_scores_error, scores.head_scores, **sizes) <= 1


@pytest.mark.parametrize("slices", [(1,), (3, 1, 2, 1)])
def test_sampled(interpreted, slices):
    """Every tap of every sampled token is found, of modules of one slice and of several, below the widest rank."""
    sizes = {"slices": slices, "most": 50, "tokens": 37, "r": 16, "rank": 6}
    assert interpreted(checks.sampled_error, **sizes, gather=sampled.sampled) == 0


def test_a_tokens_score_does_not_depend_on_its_batch(interpreted):
    """The score of a token alone, or among others, is the same to the last bit: scores can be replayed."""
    assert interpreted(checks.batch_dependence, scores.head_scores) == 0
