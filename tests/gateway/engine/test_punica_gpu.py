"""The GPU's tapped LoRA operator, with vLLM's kernels replaced by their equation: its kernels need a GPU."""

import pytest
import torch

from gateway.engine.taps import TapBuffer

IN, RANK, MOST = 12, 4, 16
SLICES = (7, 5)


@pytest.fixture
def shared():
    """The wrapper of all layers; one adapter in slot 0, which all tokens use."""
    punica_gpu = pytest.importorskip("gateway.engine.punica_gpu")

    class Equation(punica_gpu.TappedPunicaWrapperGPU):
        def __init__(self) -> None:
            pass

        def add_shrink(self, y, x, lora_a_stacked, scale, **kwargs) -> None:
            assert y.is_contiguous()  # vLLM's kernel asks for it
            for own, A in zip(y, lora_a_stacked, strict=True):
                own.copy_(scale * x @ A[0, 0].T)

        def add_expand(self, y, x, lora_b_stacked, output_slices, add_inputs=True, **kwargs) -> None:
            delta = torch.cat([h @ B[0, 0].T for h, B in zip(x, lora_b_stacked, strict=True)], 1)
            y.copy_(y + delta if add_inputs else delta)

    return Equation()


def layer():
    A = tuple(torch.randn(1, 1, RANK, IN) for _ in SLICES)
    B = tuple(torch.randn(1, 1, width, RANK) for width in SLICES)
    return A, B


def two_layers(shared):
    """Weights and wrappers of two packed layers, and the taps they share."""
    torch.manual_seed(0)
    layers = [layer(), layer()]
    rows = {A[0].data_ptr(): (2 * i, 2 * i + 1) for i, (A, _) in enumerate(layers)}
    taps = TapBuffer(["q0", "k0", "q1", "k1"], rows, MOST, RANK)
    return layers, [shared.tapped(taps, 2 * i) for i in range(2)], taps


def test_h_of_every_slice_is_kept_and_y_is_right(shared) -> None:
    """y += (x A^T) B^T; h = x A^T of each slice is what `gather` finds, for a step shorter than the memory."""
    layers, wrappers, taps = two_layers(shared)
    x, positions = torch.randn(9, IN), torch.tensor([8, 0, 3])
    for (A, B), wrapper in zip(layers, wrappers, strict=True):
        y = torch.randn(9, sum(SLICES))
        expected = y + torch.cat([x @ a[0, 0].T @ b[0, 0].T for a, b in zip(A, B, strict=True)], 1)
        wrapper.add_lora_linear(y, x, A, B, 1.0, SLICES)
        torch.testing.assert_close(y, expected)
    h = taps.gather(torch.tensor([3, 0, 1]), positions, RANK)
    wanted = [layers[1][0][1], layers[0][0][0], layers[0][0][1]]
    torch.testing.assert_close(h, torch.stack([x[positions] @ A[0, 0].T for A in wanted], 1))


def test_a_compiled_graph_keeps_the_tap(shared) -> None:
    """In one full Inductor graph the operator runs, sees the step's values at every batch size, and the memory it
    writes does not move."""
    layers, wrappers, taps = two_layers(shared)
    address = taps.h.data_ptr()

    @torch.compile(fullgraph=True, dynamic=True)
    def model(x):
        for (A, B), wrapper in zip(layers, wrappers, strict=True):
            y = x.new_zeros(len(x), sum(SLICES)) + 1
            wrapper.add_lora_linear(y, x, A, B, 1.0, SLICES)
            x = y.relu()
        return x

    for tokens in (7, 13):
        x = torch.randn(tokens, IN)
        model(x)
        h = taps.gather(torch.tensor([0, 1]), torch.arange(tokens), RANK)
        torch.testing.assert_close(h, torch.stack([x @ A[0, 0].T for A in layers[0][0]], 1))
    assert taps.h.data_ptr() == address


def test_a_freed_engine_is_refused(shared) -> None:
    """A graph that outlived its engine's wrapper cannot write its taps."""
    (A, B), handle = layer(), shared.tapped(TapBuffer([], {}, 1, RANK), 0).handle
    operator = torch.ops.openledger.tapped_lora
    arguments = torch.zeros(2, sum(SLICES)), torch.zeros(2, IN), list(A), list(B), 1.0, list(SLICES)
    with pytest.raises(KeyError):
        operator(*arguments, handle + 1000, 0, True)
