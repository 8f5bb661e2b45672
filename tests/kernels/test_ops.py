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
@given(n=SIZES, V=st.integers(3, 700), D=SIZES, k=SIZES, dtype=DTYPES)
def test_readout(n, V, D, k, dtype):
    """u and margin are within rounding of the fp64 reference at any size, with -inf logits and a margin of 60 nats."""
    assert checks.readout_error(ops.readout, n=n, V=V, D=D, k=k, dtype=dtype) <= 1


@FEW
@given(n=SIZES, slots=SIZES, m=SIZES, taps=st.integers(1, 5), k=SIZES, r=st.integers(1, 9), dtype=DTYPES)
def test_attribution_scores(n, slots, m, taps, k, r, dtype):
    """Scores of mixed adapters are within rounding; tokens without head score exactly 0 whatever lies in their rows."""
    error = checks.scores_error(ops.attribution_scores, n=n, slots=slots, m=m, taps=taps, k=k, r=r, dtype=dtype)
    assert error <= 1


@FEW
@given(contributors=SIZES, examples=SIZES, size=SIZES, dtype=DTYPES)
def test_trace_update(contributors, examples, size, dtype):
    """The in-place decomposed step is within rounding of the reference; padded examples are never read."""
    error = checks.trace_error(ops.trace_update, contributors=contributors, examples=examples, size=size, dtype=dtype)
    assert error <= 1


def test_nothing_to_score():
    """Zero tokens give zero rows."""
    u, margin = ops.readout(
        torch.empty(0, 9), torch.empty(0, dtype=torch.int64), torch.empty(0, 4), torch.randn(9, 3), torch.randn(4, 3)
    )
    assert u.shape == (0, 3)
    assert margin.shape == (0,)
    scores = ops.attribution_scores(
        u, torch.empty(0, 2, 5), torch.randn(1, 6, 2, 3, 5), torch.empty(0, dtype=torch.int64)
    )
    assert scores.shape == (0, 6)


def test_readout_direction_is_the_first_output_of_readout():
    """The engine's one-output form is the same computation."""
    args = torch.randn(2, 9), torch.tensor([1, 8]), torch.randn(2, 4), torch.randn(9, 3), torch.randn(4, 3)
    assert torch.equal(ops.readout_direction(*args), ops.readout(*args)[0])


def unmasked(logits: Tensor, emitted: Tensor, normed: Tensor, W_P: Tensor, P_over_g: Tensor) -> tuple[Tensor, Tensor]:
    """A readout that forgets to mask the emitted token out of q."""
    q = logits.softmax(1)
    slope = logits.gather(1, emitted[:, None]) - (q * logits.nan_to_num(neginf=0)).sum(1, keepdim=True)
    u = W_P[emitted] - q @ W_P - slope / normed.shape[1] * (normed @ P_over_g)
    return u, reference.readout(logits, emitted, normed, W_P, P_over_g)[1]


def without_jacobian(logits: Tensor, emitted: Tensor, normed: Tensor, W_P: Tensor, P_over_g: Tensor):
    """A readout that takes the final norm for constant."""
    return reference.readout(logits, emitted, torch.zeros_like(normed), W_P, P_over_g)


def rounded(*args: Tensor) -> tuple[Tensor, Tensor]:
    """A readout that ends in bf16."""
    u, margin = reference.readout(*args)
    return u.bfloat16(), margin


@pytest.mark.parametrize("wrong", [unmasked, without_jacobian, rounded])
def test_the_check_refuses_a_wrong_readout(wrong):
    """The tolerance is tight enough to catch a forgotten mask, a forgotten Jacobian and a bf16 result."""
    assert checks.readout_error(wrong, n=5, V=300, D=64, k=16) > 1


def test_the_check_refuses_scores_of_the_neighbouring_slot():
    """Reading another adapter's head is an error, however alike the heads are."""

    def shifted(u, h, K, slot):
        return reference.attribution_scores(u, h, K, torch.where(slot > 0, slot - 1, slot))

    assert checks.scores_error(shifted, n=20, slots=4, m=3, taps=2, k=5, r=3) > 1
