"""The CPU LoRA operations against the plain equation, and the tap they leave behind."""

from types import SimpleNamespace

import pytest
import torch

from gateway.engine.taps import TapBuffer, tap_modules

SLOTS, IN, RANK, TOKENS = 3, 20, 6, 9
SLICES = (7, 5)


@pytest.fixture
def layer() -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """A packed layer of two slices whose slot 2 holds an adapter of rank 4 in a space of 6."""
    torch.manual_seed(0)
    A = tuple(torch.randn(SLOTS, 1, RANK, IN) for _ in SLICES)
    B = tuple(torch.randn(SLOTS, 1, width, RANK) for width in SLICES)
    for a in A:
        a[2, 0, 4:] = 0
    return A, B


def wrapper(adapters: list[int], slots: list[int | None], A: tuple[torch.Tensor, ...], taps: bool = True):
    punica = pytest.importorskip("gateway.engine.punica")
    made = punica.GroupedPunicaWrapperCPU(64, 8, "cpu")
    names, rows = tap_modules({"qk": SimpleNamespace(lora_a_stacked=A)}, {"qk": ["q", "k"]})
    made.taps = TapBuffer(names, rows, 64, RANK) if taps else None
    mapping = SimpleNamespace(index_mapping=tuple(adapters), prompt_mapping=tuple(adapters), is_prefill=False)
    made.update_metadata(mapping, slots, SLOTS, 32)
    return made


@pytest.mark.parametrize(
    "adapters",
    [[11] * TOKENS, [11, 0, 12, 12, 0, 13, 11, 13, 0], [0, 0, 13, 0, 0, 0, 0, 0, 0], [0] * TOKENS],
    ids=["one", "mixed", "single row", "base only"],
)
def test_each_row_gets_its_own_adapter_and_base_rows_none(layer, adapters: list[int]) -> None:
    """y += (x A^T) B^T with the row's slot, all slots full; a row without adapter stays as it was, to the bit."""
    A, B = layer
    slots: list[int | None] = [12, 11, 13]
    x, y = torch.randn(TOKENS, IN), torch.randn(TOKENS, sum(SLICES))
    before = y.clone()
    made = wrapper(adapters, slots, A)
    made.add_lora_linear(y, x, A, B, 1.0, SLICES)
    for row, adapter in enumerate(adapters):
        if adapter == 0:
            assert torch.equal(y[row], before[row])
            continue
        slot = slots.index(adapter)
        delta = torch.cat([(x[row] @ a[slot, 0].T) @ b[slot, 0].T for a, b in zip(A, B, strict=True)])
        torch.testing.assert_close(y[row], before[row] + delta)


def test_the_tap_holds_h_of_every_adapted_row(layer) -> None:
    """h = A x at the row's position, for both slices of a packed layer."""
    A, B = layer
    adapters = [11, 0, 12, 13]
    x, y = torch.randn(4, IN), torch.zeros(4, sum(SLICES))
    made = wrapper(adapters, [12, 11, 13], A)
    made.taps.h.fill_(torch.nan)
    made.add_lora_linear(y, x, A, B, 1.0, SLICES)
    h = made.taps.gather(torch.tensor([1, 0]), torch.tensor([0, 3]), 4)
    want = torch.stack([torch.stack([A[1][s, 0, :4] @ x[r], A[0][s, 0, :4] @ x[r]]) for s, r in ((1, 0), (2, 3))])
    torch.testing.assert_close(h, want)


def test_a_layer_the_adapter_leaves_alone_is_skipped(layer) -> None:
    """Zero A means no work and no change, and a new adapter in the same slot is looked at afresh."""
    A, B = layer
    stored = A[0].clone(), A[1].clone()
    for a in A:
        a[1] = 0
    x, y = torch.randn(2, IN), torch.zeros(2, sum(SLICES))
    made = wrapper([11, 11], [12, 11, 13], A)
    made.add_lora_linear(y, x, A, B, 1.0, SLICES)
    assert not y.any()
    for a, old in zip(A, stored, strict=True):
        a.copy_(old)
    mapping = SimpleNamespace(index_mapping=(14, 14), prompt_mapping=(14, 14), is_prefill=False)
    made.update_metadata(mapping, [12, 14, 13], SLOTS, 32)
    made.add_lora_linear(y, x, A, B, 1.0, SLICES)
    assert y.any()
