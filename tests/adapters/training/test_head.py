"""Heads: the ridge fit, its targets, and the file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters.training.errors import BadHeadFile
from adapters.training.head import AttributionHead
from adapters.training.ridge import MAX_FACTORS, Bilinear, apply_bilinear, fit_bilinear, fit_narrow
from adapters.training.targets import mix, provenance

TOKENS, TAPS, K, R, CONTRIBUTORS = 300, 2, 5, 3, 4


def features(tokens: int = TOKENS) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    u = torch.randn(tokens, K, generator=draw, dtype=torch.float64)
    return u, torch.randn(tokens, TAPS, R, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 50.0])[:, None]


@pytest.mark.parametrize("tokens", [300, 20])
def test_targets_that_are_bilinear_are_reproduced(tokens: int) -> None:
    """With a vanishing ridge the fit reproduces scores that some K gives, in primal (300) and kernel (20) form."""
    u, h = features(tokens)
    true = torch.randn(CONTRIBUTORS, TAPS, K, R, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    targets = apply_bilinear(true, u, h)
    fitted = fit_bilinear(u, h, targets, 1e-12).double()
    torch.testing.assert_close(apply_bilinear(fitted, u, h), targets, rtol=1e-4, atol=1e-4)
    if tokens > TAPS * K * R:
        torch.testing.assert_close(fitted, true, rtol=1e-4, atol=1e-5)


def test_a_narrow_fit_finds_the_directions_that_carry_the_scores() -> None:
    """Scores that depend on u through two directions only are reproduced with k = 2, not with k = 1."""
    u, h = features()
    draw = torch.Generator().manual_seed(4)
    few = torch.randn(K, 2, generator=draw, dtype=torch.float64)
    true = torch.randn(CONTRIBUTORS, TAPS, 2, R, generator=draw, dtype=torch.float64)
    targets = apply_bilinear(true, u @ few, h)
    left = []
    for k, d in ((1, TAPS * R), (2, 1), (2, TAPS * R)):
        fitted = fit_narrow(u, h, targets, 1e-9, k, d).scores(u, h)
        left.append(float((fitted - targets).norm() / targets.norm()))
    assert min(left[:2]) > 0.05
    assert left[2] < 1e-3


def test_a_narrow_fit_finds_the_tap_directions_that_carry_the_scores() -> None:
    """Scores that depend on h through two directions over all taps are reproduced with d = 2."""
    u, h = features()
    draw = torch.Generator().manual_seed(6)
    few = torch.randn(TAPS, R, 2, generator=draw, dtype=torch.float64)
    true = torch.randn(CONTRIBUTORS, 1, K, 2, generator=draw, dtype=torch.float64)
    targets = apply_bilinear(true, u, torch.einsum("nmr,mrd->nd", h, few)[:, None])
    fitted = fit_narrow(u, h, targets, 1e-9, K, 2)
    assert fitted.K.shape == (CONTRIBUTORS, 1, K, 2)
    assert (fitted.scores(u, h) - targets).norm() < 1e-3 * targets.norm()


def test_many_contributors_share_the_columns_of_k() -> None:
    """300 contributors whose targets have rank 4: K has 64 columns, the scores are the targets, null ones exactly 0."""
    u, h = features()
    draw = torch.Generator().manual_seed(7)
    latent = apply_bilinear(torch.randn(4, TAPS, K, R, generator=draw, dtype=torch.float64), u, h)
    mixing = torch.randn(4, 300, generator=draw, dtype=torch.float64)
    mixing[:, 7] = 0
    fitted = fit_narrow(u, h, latent @ mixing, 1e-9, K, TAPS * R)
    assert fitted.K.shape[0] == MAX_FACTORS
    scores = fitted.scores(u, h)
    assert (scores - latent @ mixing).norm() < 1e-3 * (latent @ mixing).norm()
    assert torch.count_nonzero(scores[:, 7]) == 0


def test_the_two_forms_of_ridge_agree() -> None:
    """At equal ridge the primal solution equals K written out from the kernel's alphas."""
    u, h = features()
    targets = torch.randn(TOKENS, CONTRIBUTORS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    primal = fit_bilinear(u, h, targets, 0.1).double()
    scale = h.square().mean((0, 2)).sqrt()
    scaled = h / scale[:, None]
    kernel = (u @ u.T) * torch.einsum("nmr,pmr->np", scaled, scaled)
    kernel += 0.1 * kernel.diagonal().mean() * torch.eye(TOKENS)
    alpha = torch.linalg.solve(kernel, targets)
    expected = torch.einsum("nc,nk,nmr->cmkr", alpha, u, scaled) / scale[:, None, None]
    torch.testing.assert_close(primal, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tokens", [300, 20])
def test_a_contributor_without_a_target_scores_exactly_zero(tokens: int) -> None:
    """A column of zeros (a contributor with no accepted example) gives a K of exact zeros."""
    u, h = features(tokens)
    owner = torch.arange(tokens) % 3
    labels = provenance(owner, [*torch.bincount(owner).tolist(), 0])
    K_fitted = fit_bilinear(u, h, labels, 0.1)
    assert torch.count_nonzero(K_fitted[3]) == 0
    assert torch.count_nonzero(K_fitted[0]) > 0


def test_provenance_labels_and_the_scores_fitted_to_them_sum_to_zero() -> None:
    """one_hot - n_c/N is a contrast, and ridge is linear: every token's scores sum to zero over contributors."""
    u, h = features()
    owner = torch.arange(TOKENS) % CONTRIBUTORS
    labels = provenance(owner, torch.bincount(owner).tolist())
    assert labels.sum(1).abs().max() < 1e-12
    scores = apply_bilinear(fit_bilinear(u, h, labels, 0.1).double(), u, h)
    assert scores.sum(1).abs().max() < 1e-5 * scores.abs().max()


def test_splitting_a_contributor_leaves_the_sum_of_its_scores() -> None:
    """Two accounts that share one contributor's tokens score together what it scored alone, to 1e-5."""
    u, h = features()
    owner = torch.arange(TOKENS) % 3
    split = torch.where((owner == 2) & (torch.arange(TOKENS) % 2 == 0), 3, owner)
    one = fit_bilinear(u, h, provenance(owner, torch.bincount(owner).tolist()), 0.1)
    two = fit_bilinear(u, h, provenance(split, torch.bincount(split).tolist()), 0.1)
    torch.testing.assert_close(two[2] + two[3], one[2], rtol=1e-5, atol=1e-5 * float(one.abs().max()))
    torch.testing.assert_close(two[:2], one[:2], rtol=1e-5, atol=1e-5 * float(one.abs().max()))


def test_a_mix_keeps_the_scale_of_the_scores() -> None:
    """Weight 0 is the scores, weight 1 the labels at the scores' root mean square."""
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 7
    labels = provenance(torch.arange(50) % 4, [13, 13, 12, 12])
    torch.testing.assert_close(mix(scores, labels, 0.0), scores)
    torch.testing.assert_close(mix(scores, labels, 1.0).square().mean(), scores.square().mean())


def head() -> AttributionHead:
    draw = torch.Generator().manual_seed(5)
    return AttributionHead(
        Bilinear(
            K=torch.randn(2, 1, K, 2, generator=draw),
            P=torch.randn(7, K, generator=draw),
            H=torch.randn(TAPS, R, 2, generator=draw),
            Q=torch.randn(CONTRIBUTORS, 2, generator=draw),
        ),
        taps=("model.layers.1.mlp.down_proj", "model.layers.2.mlp.down_proj"),
        contributors=("ann", "bob", "cat", "dan"),
        base="sha256:" + "0" * 64,
        weights="sha256:" + "1" * 64,
        datanet_version="sha256:" + "2" * 64,
        fidelity="sha256:" + "3" * 64,
    )


def test_a_head_comes_back_from_its_file_unchanged(tmp_path: Path) -> None:
    """Tensors and metadata survive the round trip, and the same head gives the same bytes."""
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    head().save(first)
    loaded = AttributionHead.load(first)
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    for name, tensor in vars(head().tensors).items():
        assert torch.equal(getattr(loaded.tensors, name), tensor)
    assert (loaded.taps, loaded.contributors, loaded.method) == (head().taps, head().contributors, "trace")


def test_files_that_are_no_heads_are_refused_by_name(tmp_path: Path) -> None:
    """Garbage, a truncated file, another format and lists that do not fit K: BadHeadFile."""
    path = tmp_path / "head.safetensors"
    head().save(path)
    content = path.read_bytes()
    for damaged in (b"garbage", content[:-8], content.replace(b"openledger-head/1", b"openledger-head/9")):
        path.write_bytes(damaged)
        with pytest.raises(BadHeadFile):
            AttributionHead.load(path)
    replace(head(), contributors=("ann", "bob")).save(path)
    with pytest.raises(BadHeadFile):
        AttributionHead.load(path)
