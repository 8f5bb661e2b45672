"""Exact scorers against autograd, one token and one parameter at a time."""

import pytest
import torch

from adapters.training.gradients import Capture
from adapters.training.kronecker import curvature
from adapters.training.model import AdaptedModel, HiddenCache
from adapters.training.observe import Readout, observe
from adapters.training.packs import Pack, common_prefix, lay_out
from adapters.training.scorers import DirectionScorer, fisher_scorers, margins
from kernels import reference
from tests.adapters.training.tiny import CONTRIBUTORS, tiny_examples, tiny_model, trained_looking


def random_directions(model: AdaptedModel) -> torch.Tensor:
    draw = torch.Generator().manual_seed(11)
    return torch.randn(CONTRIBUTORS, model.parameter.numel(), generator=draw, dtype=model.parameter.dtype)


@pytest.mark.parametrize("train_a", [False, True])
@pytest.mark.parametrize("position_local", [True, False])
def test_scores_are_the_inner_product_with_the_margins_gradient(position_local: bool, train_a: bool) -> None:
    """score_c(t) = <d margin_t / dB, T_c> (and of A, where trained), with autograd's own gradient, token by token."""
    model, examples = trained_looking(tiny_model(torch.float64, train_a=train_a)), tiny_examples(2)
    directions = random_directions(model)
    observed = observe(
        model, Readout(model.causal_lm), examples, [DirectionScorer("any", directions)], position_local=position_local
    )
    parameters = [linear.weight.requires_grad_() for linear in model.trained.values()]
    expected = []
    for index in observed.example.unique_consecutive().tolist():
        example = examples[index]
        layout = lay_out([example], 0, [Pack(0, (0,))], torch.float64)
        for position in [at for at, learnt in enumerate(example.supervised) if learnt]:
            residual = _forward_with_detached_others(model, example.ids, layout, position - 1, position_local)
            logits = model.causal_lm.lm_head(model.decoder.norm(residual[:, position - 1]))
            margin = margins(logits, torch.tensor([example.ids[position]]))[0]
            gradient = torch.autograd.grad(margin, parameters, allow_unused=True, materialize_grads=True)
            flat = torch.cat([part.flatten() for part in gradient])
            expected.append(directions @ flat)
    torch.testing.assert_close(observed.scores["any"], torch.stack(expected), rtol=1e-9, atol=1e-12)


def _forward_with_detached_others(model, ids, layout, position, position_local):  # type: ignore[no-untyped-def]
    """The residual stream; position-local means that keys and values carry no gradient."""
    hidden = model.lower(torch.tensor([list(ids)]), layout)
    if not position_local:
        return model.upper(hidden, layout)
    with model.position_local():
        return model.upper(hidden, layout)


def test_the_direction_u_is_the_margins_gradient_in_the_final_residual() -> None:
    """u = rho d margin / dx, x the residual before the final norm, by autograd in fp64 (to fp32's rounding)."""
    model, examples = trained_looking(tiny_model(torch.float64)), tiny_examples(3)
    cache = HiddenCache(model, examples, common_prefix(examples))
    hidden, layout = cache.batch([Pack(0, (i,)) for i in range(3)])
    residual = model.upper(hidden, layout).detach().requires_grad_()
    normed, logits = model.normed_and_logits(residual, layout)
    (gradient,) = torch.autograd.grad(margins(logits, layout.target).sum(), residual)
    x = residual.detach()[layout.row, layout.column]
    rho = (x.square().mean(1, keepdim=True) + model.causal_lm.config.rms_norm_eps).sqrt()
    expected = rho * gradient[layout.row, layout.column]
    W, g = model.causal_lm.lm_head.weight.detach(), model.decoder.norm.weight.detach()
    seen = logits.detach(), layout.target, normed.detach(), W, W.mean(0), g
    u, _ = reference.readout(*seen, rare=1e-30)
    torch.testing.assert_close(Readout(model.causal_lm)(*seen[:3]), reference.readout(*seen)[0].float())
    torch.testing.assert_close(u.double(), expected, rtol=2e-5, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("train_a", [False, True])
def test_margins_agree_with_finite_differences_of_scores(train_a: bool) -> None:
    """Moving what is trained by epsilon T_c changes a token's margin by epsilon times its full-gradient score."""
    model, examples = trained_looking(tiny_model(torch.float64, train_a=train_a)), tiny_examples(1)
    directions = random_directions(model)
    scorer = DirectionScorer("any", directions)
    observed = observe(model, Readout(model.causal_lm), examples, [scorer], position_local=False)
    epsilon = 3e-4  # the model's RMSNorm rounds to fp32
    for c in range(CONTRIBUTORS):
        moved = []
        for sign in (1, -1):
            model.parameter.add_(directions[c], alpha=sign * epsilon)
            moved.append(observe(model, Readout(model.causal_lm), examples, []).margin)
            model.parameter.sub_(directions[c], alpha=sign * epsilon)
        slope = (moved[0] - moved[1]) / (2 * epsilon)
        torch.testing.assert_close(observed.scores["any"][:, c], slope, rtol=2e-3, atol=2e-3)


def test_a_contributor_without_examples_scores_exactly_zero_by_fisher_and_gradient() -> None:
    """No example, no gradient: 0.0 for every token."""
    model, examples = trained_looking(tiny_model()), tiny_examples()
    cache = HiddenCache(model, examples, common_prefix(examples))
    packs = [[Pack(example.owner, (i,)) for i, example in enumerate(examples)]]
    scorers = fisher_scorers(model, cache, packs, CONTRIBUTORS + 1)
    observed = observe(model, Readout(model.causal_lm), examples, scorers)
    for scores in observed.scores.values():
        assert torch.count_nonzero(scores[:, CONTRIBUTORS]) == 0
        assert torch.count_nonzero(scores[:, 0]) > 0


@pytest.mark.parametrize("side", ["", ".lora_A"])
def test_ekfac_with_a_full_basis_of_one_token_is_its_damped_outer_product(side: str) -> None:
    """Against the equation written out densely: rotate, divide by the mean squared rotated gradients, rotate back."""
    model, examples = trained_looking(tiny_model(torch.float64, train_a=bool(side))), tiny_examples(6)
    cache = HiddenCache(model, examples, common_prefix(examples))
    batches = [[Pack(example.owner, (i,))] for i, example in enumerate(examples)]
    found = curvature(model, cache, batches)
    totals = random_directions(model)
    corrected = model.split(found.corrected(model, totals, damping=0.5))
    name = next(iter(model.modules)) + side
    rows = []
    for batch in batches:
        hidden, layout = cache.batch(batch)
        with Capture(model) as capture:
            _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
            torch.nn.functional.cross_entropy(logits, layout.target, reduction="sum").backward()
        rows.append((capture.g[name].flatten(0, 1), capture.h[name].flatten(0, 1)))
    g, h = (torch.cat(parts) for parts in zip(*rows, strict=True))
    _, u = torch.linalg.eigh(g.T @ g)
    _, v = torch.linalg.eigh(h.T @ h)
    basis = torch.kron(u.contiguous(), v.contiguous())
    each = torch.einsum("no,nr->nor", g, h).flatten(1) @ basis
    values = each.square().mean(0)
    expected = basis @ (basis.T @ model.split(totals)[name].flatten(1).T / (values + 0.5 * values.mean())[:, None])
    torch.testing.assert_close(corrected[name].flatten(1).T, expected, rtol=1e-6, atol=1e-9)
