"""The tap under torch.compile: kept, once per call, at an address that does not move."""

import pytest
import torch

from kernels.tap import Taps


def test_keep_copies_the_shrink_output_to_its_taps():
    """Rows, taps and ranks beyond the shrink output are left alone; conversion is that of the kept dtype."""
    taps = Taps(5, 8, 3, torch.float64, "cpu")
    y = torch.randn(2, 6, 3)
    taps.keep(y, 1)
    assert torch.equal(taps.kept[1:3, :6], y.double())
    assert taps.kept.count_nonzero() == y.numel()


def test_sampled_is_the_activation_of_the_sampled_positions():
    """h[i, l] = kept[l, positions[i]]."""
    taps = Taps(3, 8, 2, torch.float32, "cpu")
    taps.kept.normal_()
    h = taps.sampled(torch.tensor([5, 0]))
    assert h.shape == (2, 3, 2)
    assert torch.equal(h[0, 2], taps.kept[2, 5])


def test_a_shrink_that_wrote_in_place_is_not_copied(monkeypatch):
    """With y already the kept memory there is nothing to do."""
    taps = Taps(3, 8, 2, torch.float32, "cpu")
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *_: pytest.fail("copied"))
    taps.keep(taps.rows(1, 2, 4), 1)


def test_a_dead_handle_is_refused():
    """Taps that were freed with their engine cannot be written by a graph that outlived it."""
    taps = Taps(1, 1, 1, torch.float32, "cpu")
    handle = taps.handle
    del taps
    with pytest.raises(KeyError):
        torch.ops.openledger.keep(torch.zeros(1, 1, 1), handle, 0)


def test_a_compiled_graph_keeps_the_tap():
    """In one full Inductor graph, the operator runs though nothing reads its result, sees the shrink's values, and the
    address it writes is the same after every call."""
    taps = Taps(4, 16, 3, torch.float32, "cpu")
    address = taps.kept.data_ptr()
    A, B = torch.randn(3, 10), torch.randn(10, 3)

    @torch.compile(fullgraph=True)
    def layer(x):
        y = (x @ A.T)[None]
        taps.keep(y, 2)
        return x + (y[0] @ B.T).relu()

    for _ in range(2):
        x = torch.randn(7, 10)
        out = layer(x)
        torch.testing.assert_close(taps.kept[2, :7], x @ A.T)
        torch.testing.assert_close(out, x + (x @ A.T @ B.T).relu())
    assert taps.kept.data_ptr() == address
    assert taps.kept[[0, 1, 3]].count_nonzero() == 0
