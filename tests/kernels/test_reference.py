"""The specification itself, against autograd, finite differences and torch's own optimizer, in fp64."""

import pytest
import torch
from torch import Tensor

from kernels import reference
from kernels.reference import AdamW

V, D, K, EPS = 23, 12, 5, 1e-5


class Readout:
    """A random final norm and unembedding in fp64, and what the score needs of them."""

    def __init__(self) -> None:
        make = torch.Generator().manual_seed(0)
        self.unembedding = torch.randn(V, D, generator=make, dtype=torch.float64)
        self.g = torch.rand(D, generator=make, dtype=torch.float64) + 0.5
        self.P = torch.linalg.qr(torch.randn(D, K, generator=make, dtype=torch.float64))[0]
        self.x = 3 * torch.randn(4, D, generator=make, dtype=torch.float64)
        self.emitted = torch.tensor([0, 7, 22, 7])

    def rms(self, x: Tensor) -> Tensor:
        return (x.square().mean(-1, keepdim=True) + EPS).sqrt()

    def margin(self, x: Tensor) -> Tensor:
        log_p = (x * self.g / self.rms(x) @ self.unembedding.T).log_softmax(-1).gather(-1, self.emitted[:, None])
        return (log_p - torch.log(-torch.expm1(log_p)))[:, 0]

    def operation(self) -> tuple[Tensor, Tensor]:
        normed = self.x * self.g / self.rms(self.x)
        logits = normed @ self.unembedding.T
        mean_row = self.unembedding.mean(0)
        return reference.readout(logits, self.emitted, normed, self.unembedding, mean_row, self.g, rare=1e-30)


def test_readout_direction_is_the_gradient_of_the_margin_times_the_rms():
    """u = rms d margin / d residual, through the final RMSNorm: autograd agrees to 1e-6 (eps inside the rms is
    what is left, being outside the formula)."""
    case = Readout()
    x = case.x.requires_grad_()
    (gradient,) = torch.autograd.grad(case.margin(x).sum(), x)
    u, _ = case.operation()
    torch.testing.assert_close(u, case.rms(x) * gradient, rtol=1e-6, atol=1e-6)


def test_readout_direction_agrees_with_finite_differences():
    """Moving the residual along a column of P changes the margin by P^T u / rms per unit, to truncation error."""
    case, step = Readout(), 1e-5
    u, _ = case.operation()
    for a in range(K):
        move = step * case.P[:, a]
        slope = (case.margin(case.x + move) - case.margin(case.x - move)) / (2 * step)
        torch.testing.assert_close(u @ case.P[:, a], case.rms(case.x)[:, 0] * slope, rtol=1e-6, atol=1e-6)


def test_rare_words_count_as_the_mean_word():
    """A word above twice `rare` has its own row; one below `rare` has the mean row; between them u does not jump."""
    make = torch.Generator().manual_seed(3)
    W, normed, g = torch.randn(V, D, generator=make, dtype=torch.float64), torch.zeros(1, D), torch.ones(D)
    mean_row, emitted = W.mean(0), torch.tensor([0])

    def u(share: float) -> Tensor:
        """All mass on words 0 (emitted), 1 (the rest) and 2 (`share`)."""
        logits = torch.full((1, V), -torch.inf, dtype=torch.float64)
        logits[0, :3] = torch.tensor([0.0, 1 - share, share]).log()
        logits[0, 0] = 0.0
        return reference.readout(logits, emitted, normed, W, mean_row, g, rare=0.1)[0][0]

    torch.testing.assert_close(u(0.3), W[0] - 0.7 * W[1] - 0.3 * W[2])
    torch.testing.assert_close(u(0.05), W[0] - 0.95 * W[1] - 0.05 * mean_row)
    for edge in (0.1, 0.2):
        torch.testing.assert_close(u(edge - 1e-7), u(edge + 1e-7), rtol=0, atol=1e-5)


def test_margin_is_the_log_odds_of_the_emitted_token():
    """margin = log p_y - log(1 - p_y)."""
    case = Readout()
    _, margin = case.operation()
    torch.testing.assert_close(margin, case.margin(case.x))


def test_scores_are_signed_and_additive_over_taps():
    """The score of all taps is the sum of the scores of each; negating u negates it."""
    u, h, head = torch.randn(6, 3), torch.randn(6, 4, 2), torch.randn(2, 5, 4, 3, 2)
    slot = torch.tensor([0, 1, 1, -1, 0, 1])
    whole = reference.attribution_scores(u, h, head, slot)
    parts = [reference.attribution_scores(u, h[:, l : l + 1], head[:, :, l : l + 1], slot) for l in range(4)]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(reference.attribution_scores(-u, h, head, slot), -whole)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_contributors_traces_add_up_to_what_adamw_learned(weight_decay: float):
    """parameter = decay^t B_0 + sum_c trace_c after every step, and parameter is that of torch.optim.AdamW."""
    make = torch.Generator().manual_seed(1)
    start = torch.randn(9, generator=make, dtype=torch.float64)
    adam = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([adam], lr=1e-2, weight_decay=weight_decay)
    states = start, *(torch.zeros(s, dtype=torch.float64) for s in ((4, 9), (4, 9), (9,)))
    for step in range(1, 8):
        gradient = torch.randn(6, 9, generator=make, dtype=torch.float64)
        owner = torch.randint(-1, 3, (6,), generator=make)
        adamw = AdamW(lr=1e-2, step=step, weight_decay=weight_decay)
        states = reference.trace_update(*states, gradient, owner, adamw)
        adam.grad = gradient[owner >= 0].sum(0)
        optimizer.step()
        torch.testing.assert_close(states[0], adam.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(adamw.decay**step * start + states[1].sum(0), states[0], rtol=1e-12, atol=1e-12)
    assert (states[1][3] == 0).all(), "contributor 3 has no example, so no trace"
