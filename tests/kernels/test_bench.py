"""The benchmark's own parts: what it refuses, and what it compares with."""

import pytest
import torch

from kernels import readout, reference, scores, trace
from kernels.bench import eager, gate, sweep
from kernels.bench.decode import DecodeStep, Model
from kernels.bench.timing import paired


def test_a_wrong_operation_is_not_timed(monkeypatch):
    """One operation that fails its check ends the benchmark before any timing."""
    monkeypatch.setattr(gate.ops, "attribution_scores", lambda u, h, K, slot: torch.zeros(len(u), K.shape[1]))
    with pytest.raises(gate.WrongResult, match="attribution_scores"):
        list(gate.checked("cpu"))


def test_the_eager_rivals_compute_the_same():
    """The eager forms agree with the specification where every token and example has an owner."""
    torch.manual_seed(0)
    args = torch.randn(3, 9), torch.tensor([1, 8, 0]), torch.randn(3, 4), torch.randn(9, 4), *torch.rand(2, 4)
    for actual, expected in zip(eager.readout(*args), reference.readout(*args), strict=True):
        torch.testing.assert_close(actual, expected)
    heads = torch.randn(3, 5), torch.randn(3, 2, 4), torch.randn(2, 6, 2, 5, 4), torch.tensor([1, 0, 1])
    torch.testing.assert_close(eager.attribution_scores(*heads), reference.attribution_scores(*heads))
    states = torch.randn(7), torch.zeros(2, 7), torch.zeros(2, 7), torch.ones(7)
    rest = torch.randn(3, 7), torch.tensor([0, 1, 1]), reference.AdamW(lr=0.1, step=2)
    expected = reference.trace_update(*states, *rest)
    eager.trace_update(*states, *rest)
    for a, e in zip(states, expected, strict=True):
        torch.testing.assert_close(a, e)


def test_the_decode_step_yields_logits_for_every_sequence():
    """The 8B yardstick, small: finite fp32 logits [n, V]."""
    small = Model(layers=2, D=32, heads=4, kv_heads=2, hidden=48, V=50, head_dim=8)
    logits = DecodeStep(small, n=3, context=5, device="cpu")()
    assert logits.shape == (3, 50)
    assert logits.isfinite().all()


def test_paired_ratio_of_a_thing_and_itself():
    """The interval contains the median, and both are near 1."""
    ratio = paired(lambda: sum(range(10000)), lambda: sum(range(10000)), pairs=11)
    assert ratio.low <= ratio.ratio <= ratio.high
    assert 0.2 < ratio.ratio < 5


def test_the_sweep_changes_constants_that_exist(monkeypatch):
    """Every constant that is varied is its module's, and without a GPU nothing is measured."""
    for module, changes in (
        (readout, sweep.CHUNKS + sweep.ROWS_READ),
        (scores, sweep.SHARED + sweep.CONTRACTED),
        (trace, sweep.UPDATED),
    ):
        assert all(isinstance(getattr(module, name), int) for change in changes for name in change)
    if not torch.cuda.is_available():
        monkeypatch.setattr("sys.argv", ["sweep"])
        with pytest.raises(SystemExit, match="GPU"):
            sweep.main()
