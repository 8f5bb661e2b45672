"""Datamodel coefficients of linear margins, and the choice of a target by cross-fitted LDS."""

import numpy as np
import torch

from adapters.training.calibrated import Evidence, choose, folds, mixes
from adapters.training.datamodel import coefficients, explained
from adapters.training.lds import Outcomes
from adapters.training.observe import Observations
from adapters.training.subsets import indicator, plan

CONTRIBUTORS, TOKENS = 6, 400
RUNS = plan(CONTRIBUTORS, 12, (1, 2), leave_one_out=False, design_seed=0)
MEMBERS = indicator([run.members for run in RUNS], CONTRIBUTORS)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(found: torch.Tensor, theta: torch.Tensor) -> float:
    """Mean square of what half subsets can tell: not the common part."""
    left = found - theta
    return float((left - left.mean(1, keepdim=True)).square().mean())


def test_linear_margins_are_recovered() -> None:
    """Exactly when the scorers hold them between them, whatever intercepts; who has no example stays at zero."""
    parts = drawn(0, TOKENS, CONTRIBUTORS), drawn(1, TOKENS, CONTRIBUTORS)
    theta = 2 * parts[0] - 3 * parts[1]
    margins = (drawn(2, TOKENS, 1) + theta @ MEMBERS.T).T
    found = coefficients(margins, RUNS, range(CONTRIBUTORS), CONTRIBUTORS, parts)
    torch.testing.assert_close(found, theta, rtol=1e-6, atol=1e-6)
    assert explained(found, margins, RUNS) > 0.9999
    twice = coefficients(margins, RUNS, range(CONTRIBUTORS), CONTRIBUTORS, [*parts, parts[0]])
    torch.testing.assert_close(twice, theta, rtol=1e-6, atol=1e-6)
    absent = theta.clone()
    absent[:, 2] = 0
    found = coefficients((absent @ MEMBERS.T).T, RUNS, [0, 1, 3, 4, 5], CONTRIBUTORS, [absent])
    torch.testing.assert_close(found, absent, rtol=1e-6, atol=1e-6)
    assert torch.count_nonzero(found[:, 2]) == 0


def test_more_half_subsets_outweigh_a_scorer_that_is_wrong() -> None:
    """An unrelated scorer costs less the more there is to see; another seed of the same subsets changes nothing."""
    theta, wrong = drawn(3, TOKENS, CONTRIBUTORS), drawn(4, TOKENS, CONTRIBUTORS)
    gaps = []
    for subsets in (4, 20):
        once, again = (plan(CONTRIBUTORS, subsets, s, leave_one_out=False, design_seed=0) for s in ((1,), (1, 2)))
        found, repeated = (
            coefficients(
                (theta @ indicator([run.members for run in runs], CONTRIBUTORS).T).T,
                runs, range(CONTRIBUTORS), CONTRIBUTORS, [wrong],
            )
            for runs in (once, again)
        )  # fmt: skip
        torch.testing.assert_close(found, repeated)
        gaps.append(gap(found, theta))
    assert gaps[1] < 0.1 * gaps[0]


def test_the_target_that_predicts_retraining_is_chosen() -> None:
    """Of a true target, an unrelated one and the bank's own: the true one (or a mix with it), by held-out queries."""
    draw = torch.Generator().manual_seed(1)
    u = torch.randn(TOKENS, 3, generator=draw, dtype=torch.float64)
    h = torch.randn(TOKENS, 2, 2, generator=draw, dtype=torch.float64)
    K = torch.randn(CONTRIBUTORS, 2, 3, 2, generator=draw, dtype=torch.float64)
    true = torch.einsum("nk,cmkr,nmr->nc", u, K, h)
    wrong = torch.einsum("nk,cmkr,nmr->nc", u, K.flip(0).roll(1, 1), h)
    noise = torch.randn(len(RUNS), TOKENS, generator=draw, dtype=torch.float64)
    margins = (true @ MEMBERS.T).T + 2.0 * noise
    example = torch.arange(TOKENS) // 10
    seen = Observations(example, u, h, torch.zeros(TOKENS), {})
    halves = MEMBERS[[run.kind == "half" for run in RUNS]][:12].numpy()
    summed = torch.zeros(TOKENS // 10, CONTRIBUTORS, dtype=torch.float64).index_add_(0, example, true).numpy()
    clean = (summed @ halves.T).T
    half = np.stack([clean + np.random.default_rng(seed).normal(size=clean.shape) for seed in (1, 2)])
    outcomes = Outcomes(halves, half, half[:, 0], None, np.arange(TOKENS // 10) % CONTRIBUTORS)
    evidence = Evidence(margins, RUNS, range(CONTRIBUTORS), {"true": true, "wrong": wrong}, ["true"])
    choice = choose(seen, evidence, seen, outcomes, ridge=1e-3)
    assert "true" in choice.shares
    assert "wrong" not in choice.shares
    assert choice.candidates["true"] > 0.9 > choice.candidates["wrong"] + 0.3
    assert len(choice.reporting) == 18  # every other of 7, 7, 7, 7, 6 and 6
    bank = evidence.bank_target()
    torch.testing.assert_close(evidence.mixed({"bank": 1.0}), bank)
    scaled = true * (bank.square().mean() / true.square().mean()).sqrt()
    torch.testing.assert_close(evidence.mixed({"true": 1.0}), scaled)


def test_folds_hold_complements_together_and_mixes_are_convex() -> None:
    """Every subset is judged once; shares sum to one."""
    found = folds(12)
    assert sorted(np.concatenate(found).tolist()) == list(range(12))
    assert all({index ^ 1 for index in fold.tolist()} == set(fold.tolist()) for fold in found)
    assert all(abs(sum(shares.values()) - 1) < 1e-12 for shares in mixes(["a", "b", "c"]))
    assert len(mixes(["a", "b", "c"])) == 3 + 3 * 3


def test_a_scorer_supplies_what_few_retrains_cannot_say() -> None:
    """Noisy margins of few subsets: pulled toward a scorer of the right shape, at any scale, they come nearer."""
    draw = torch.Generator().manual_seed(2)
    theta = torch.randn(TOKENS, CONTRIBUTORS, generator=draw, dtype=torch.float64)
    scorer = 7 * (theta + 0.5 * torch.randn(TOKENS, CONTRIBUTORS, generator=draw, dtype=torch.float64))
    runs = plan(CONTRIBUTORS, 4, (1,), leave_one_out=False, design_seed=0)
    members = indicator([run.members for run in runs], CONTRIBUTORS)
    margins = (theta @ members.T).T + torch.randn(len(runs), TOKENS, generator=draw, dtype=torch.float64)

    pulled = gap(coefficients(margins, runs, range(CONTRIBUTORS), CONTRIBUTORS, [scorer]), theta)
    misled = gap(coefficients(margins, runs, range(CONTRIBUTORS), CONTRIBUTORS, [scorer.roll(1, 1)]), theta)
    scaled = gap(coefficients(margins, runs, range(CONTRIBUTORS), CONTRIBUTORS, [100 * scorer]), theta)
    assert pulled < 0.5 * misled
    assert abs(scaled - pulled) < 1e-9
