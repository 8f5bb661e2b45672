"""The CPU path behind `kernels.ops` keeps the specification, and the checks that say so can fail."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import checks, ops, reference

SIZES = st.integers(1, 40)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
FEW = settings(max_examples=25, deadline=None)


@FEW
@given(n=SIZES, V=st.integers(3, 7000), D=SIZES, dtype=DTYPES)
def test_readout(n, V, D, dtype):
    """u and margin are within rounding of the fp64 reference at any size, with -inf logits and a margin of 60 nats."""
    assert checks.readout_error(ops.readout, n=n, V=V, D=D, dtype=dtype) <= 1


@FEW
@given(n=SIZES, slots=SIZES, a=SIZES, b=SIZES, dtype=DTYPES)
def test_head_products(n, slots, a, b, dtype):
    """Products of mixed adapters are within rounding; tokens without head give 0 whatever lies in their rows."""
    assert checks.products_error(ops.head_products, n=n, slots=slots, a=a, b=b, dtype=dtype) <= 1


@FEW
@given(n=SIZES, slots=SIZES, m=SIZES, taps=st.integers(1, 5), k=SIZES, r=st.integers(1, 9), dtype=DTYPES)
def test_attribution_scores(n, slots, m, taps, k, r, dtype):
    """Scores of mixed adapters are within rounding; tokens without head score exactly 0 whatever lies in their rows."""
    error = checks.scores_error(ops.attribution_scores, n=n, slots=slots, m=m, taps=taps, k=k, r=r, dtype=dtype)
    assert error <= 1


@FEW
@given(
    n=SIZES, slots=SIZES, m=SIZES, taps=st.integers(1, 5), k=SIZES, r=st.integers(1, 9), D=SIZES,
    d=st.one_of(st.none(), SIZES), dtype=DTYPES,
)  # fmt: skip
def test_head_scores(n, slots, m, taps, k, r, D, d, dtype):
    """Scores through narrowed u and h are within rounding, with and without H."""
    sizes = {"n": n, "slots": slots, "m": m, "taps": taps, "k": k, "r": r, "D": D, "d": d}
    assert checks.head_scores_error(ops.head_scores, **sizes, dtype=dtype) <= 1


@FEW
@given(contributors=SIZES, examples=SIZES, size=SIZES, dtype=DTYPES)
def test_trace_update(contributors, examples, size, dtype):
    """The in-place decomposed step is within rounding of the reference; padded examples are never read."""
    error = checks.trace_error(ops.trace_update, contributors=contributors, examples=examples, size=size, dtype=dtype)
    assert error <= 1


def test_nothing_to_score():
    """Zero tokens give zero rows."""
    u, margin = ops.readout(
        torch.empty(0, 9), torch.empty(0, dtype=torch.int64), torch.empty(0, 3), torch.randn(9, 3), *torch.ones(2, 3)
    )
    assert u.shape == (0, 3)
    assert margin.shape == (0,)
    scores = ops.attribution_scores(
        u, torch.empty(0, 2, 5), torch.randn(1, 6, 2, 3, 5), torch.empty(0, dtype=torch.int64)
    )
    assert scores.shape == (0, 6)


def unmasked(logits: Tensor, emitted: Tensor, normed: Tensor, W: Tensor, mean_row: Tensor, g: Tensor):
    """A readout that forgets to mask the emitted token out of q."""
    q = logits.softmax(1)
    w = q * (q / reference.RARE - 1).clamp(0, 1)
    slope = logits.gather(1, emitted[:, None]) - (q * logits.nan_to_num(neginf=0)).sum(1, keepdim=True)
    expected = w @ W + (1 - w.sum(1, keepdim=True)) * mean_row
    u = g * (W[emitted] - expected) - slope / normed.shape[1] * normed / g
    return u, reference.readout(logits, emitted, normed, W, mean_row, g)[1]


def without_jacobian(logits: Tensor, emitted: Tensor, normed: Tensor, W: Tensor, mean_row: Tensor, g: Tensor):
    """A readout that takes the final norm for constant."""
    return reference.readout(logits, emitted, torch.zeros_like(normed), W, mean_row, g)


def without_ramp(logits: Tensor, emitted: Tensor, normed: Tensor, W: Tensor, mean_row: Tensor, g: Tensor):
    """A readout in which rare words count in full."""
    return reference.readout(logits, emitted, normed, W, mean_row, g, rare=1e-30)


def rounded(*args: Tensor) -> tuple[Tensor, Tensor]:
    """A readout that ends in bf16."""
    u, margin = reference.readout(*args)
    return u.bfloat16(), margin


@pytest.mark.parametrize("wrong", [unmasked, without_jacobian, without_ramp, rounded])
def test_the_check_refuses_a_wrong_readout(wrong):
    """The tolerance is tight enough to catch a forgotten mask, Jacobian or ramp, and a bf16 result."""
    assert checks.readout_error(wrong, n=5, V=3000, D=64) > 1


def test_the_check_refuses_scores_of_the_neighbouring_slot():
    """Reading another adapter's head is an error, however alike the heads are."""

    def shifted(u, h, K, slot):
        return reference.attribution_scores(u, h, K, torch.where(slot > 0, slot - 1, slot))

    assert checks.scores_error(shifted, n=20, slots=4, m=3, taps=2, k=5, r=3) > 1
