"""Axioms of attribution that hold by construction: two names score what one scores, and nobody scores nothing."""

import random

import torch

from adapters.training.kronecker import curvature
from adapters.training.model import HiddenCache
from adapters.training.packs import common_prefix, make_packs
from adapters.training.ridge import fit_bilinear, fit_narrow
from adapters.training.trace import TraceState
from tests.adapters.training.tiny import tiny_config, tiny_examples, tiny_model, trained_looking

STEPS, SPLIT = 25, 1e-5


def traced(gradients: torch.Tensor) -> TraceState:
    """The trace [C, P] of steps with per-contributor gradients [steps, C, P]."""
    state = TraceState.start(torch.zeros(gradients.shape[2]), gradients.shape[1])
    for step, gradient in enumerate(gradients, start=1):
        state.step(gradient, step, lr=0.01, config=tiny_config())
    return state


def test_the_trace_of_two_names_adds_up_to_the_trace_of_one() -> None:
    """A contributor whose gradients come under two names moves the weights as before; the traces add up to 1e-5."""
    draw = torch.Generator().manual_seed(1)
    split = torch.randn(STEPS, 4, 50, generator=draw)
    one = torch.stack([split[:, 0], split[:, 1], split[:, 2] + split[:, 3]], dim=1)
    whole, parts = traced(one), traced(split)
    torch.testing.assert_close(parts.parameter, whole.parameter, rtol=SPLIT, atol=1e-12)
    for name in ("trace", "in_run"):
        both = getattr(parts, name)[2:].sum(0)
        error = (both - getattr(whole, name)[2]).abs().max() / getattr(whole, name)[2].abs().max()
        assert float(error) < SPLIT


def test_the_trace_of_nobody_is_exactly_zero() -> None:
    """No gradient, no trace: 0.0 after any number of steps of the others."""
    gradients = torch.randn(STEPS, 3, 50, generator=torch.Generator().manual_seed(2))
    gradients[:, 1] = 0
    state = traced(gradients)
    assert torch.count_nonzero(state.trace[1]) == torch.count_nonzero(state.in_run[1]) == 0
    assert torch.count_nonzero(state.trace[0]) > 0


def test_a_head_of_two_names_scores_what_a_head_of_one_scores() -> None:
    """Ridge is linear in its targets, in both its forms; a column of zeros gives exact zeros."""
    draw = torch.Generator().manual_seed(3)
    for tokens in (40, 300):  # kernel form, primal form
        u, h = torch.randn(tokens, 6, generator=draw), torch.randn(tokens, 4, 5, generator=draw)
        targets = torch.randn(tokens, 4, generator=draw)
        targets[:, 3] = 0
        one = torch.stack([targets[:, 0], targets[:, 1] + targets[:, 2]], dim=1)
        split, whole = fit_bilinear(u, h, targets, 0.1), fit_bilinear(u, h, one, 0.1)
        error = (split[1] + split[2] - whole[1]).abs().max() / whole[1].abs().max()
        assert float(error) < SPLIT
        assert torch.count_nonzero(split[3]) == 0


def test_a_narrow_head_is_exactly_zero_for_nobody() -> None:
    """Also where the head chooses its own directions from all contributors' scores."""
    draw = torch.Generator().manual_seed(4)
    u, h, targets = (torch.randn(shape, generator=draw) for shape in ((60, 6), (60, 4, 5), (60, 3)))
    targets[:, 1] = 0
    K = fit_narrow(u, h, targets, 0.1, 3, 4).K
    assert torch.count_nonzero(K[1]) == 0
    assert torch.count_nonzero(K[0]) > 0


def test_influence_divided_by_the_curvature_is_exactly_zero_for_nobody() -> None:
    """EK-FAC rotates, divides and rotates back: nothing stays nothing, exactly."""
    model, examples = trained_looking(tiny_model()), tiny_examples()
    cache = HiddenCache(model, examples, common_prefix(examples))
    packs = make_packs(examples, cache.prefix, 40, random.Random(0))
    found = curvature(model, cache, [packs])
    totals = torch.randn(3, model.parameter.numel(), generator=torch.Generator().manual_seed(5))
    totals[2] = 0
    corrected = found.corrected(model, totals, 1.0)
    assert torch.count_nonzero(corrected[2]) == 0
    assert torch.count_nonzero(corrected[0]) > 0
