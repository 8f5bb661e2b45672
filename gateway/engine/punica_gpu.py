"""vLLM's LoRA operations for linear layers on a GPU, which leave the shrink's output in the tap memory.

`openledger::tapped_lora(Tensor(a!) y, Tensor x, Tensor[] A, Tensor[] B, float scale, int[] slices, int handle, int
first, bool add_inputs)` is one opaque operator, shrink and expand together: inside, vLLM's kernels write h where the
scores will look for it, so nothing is copied and the compiled graph knows of no memory but y. It finds the tap memory
and the step's mapping by handle when it runs.
"""

import copy
import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU

from gateway.engine.taps import TapBuffer

_library = torch.library.Library("openledger", "DEF")
_library.define(
    "tapped_lora(Tensor(a!) y, Tensor x, Tensor[] A, Tensor[] B, float scale, int[] slices, int handle, int first, "
    "bool add_inputs) -> ()"
)
_handles = itertools.count()
_wrappers: "WeakValueDictionary[int, TappedPunicaWrapperGPU]" = WeakValueDictionary()


class TappedPunicaWrapperGPU(PunicaWrapperGPU):  # type: ignore[misc]
    """The wrapper of one layer, which knows its tap rows, or of all layers without taps.

    The compiled graph cannot ask a tensor for its address, so each tapped layer gets a wrapper of its own, in which the
    number of its first tap row is a constant (`tapped`). What vLLM changes from step to step lives in objects that
    all these wrappers share: the mapping tensors of `token_mapping_meta`.
    """

    taps: TapBuffer | None = None
    handle: int = -1
    first_row: int = -1

    def tapped(self, taps: TapBuffer, first_row: int) -> "TappedPunicaWrapperGPU":
        """This wrapper, for the layer whose tap rows start at `first_row`."""
        if self.handle not in _wrappers:
            self.handle = next(_handles)
            _wrappers[self.handle] = self
        self.taps = taps
        own = copy.copy(self)
        own.first_row = first_row
        return own

    def add_lora_linear(  # type: ignore[override]
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """y[slice i] += scale (x A_i^T) B_i^T, by vLLM's kernels."""
        if self.first_row < 0:
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, buffer=buffer, **kwargs)
            return
        torch.ops.openledger.tapped_lora(
            y, x, list(lora_a_stacked), list(lora_b_stacked), scale, list(output_slices), self.handle, self.first_row,
            kwargs.get("add_inputs", True),
        )  # fmt: skip


def _tapped_lora(
    y: Tensor, x: Tensor, A: list[Tensor], B: list[Tensor], scale: float, slices: list[int], handle: int, first: int,
    add_inputs: bool,
) -> None:  # fmt: skip
    wrapper = _wrappers[handle]
    assert wrapper.taps is not None
    taps = wrapper.taps.static
    if first == 0:  # the step's first module
        taps.begin(len(x))
    h = taps.rows(first, len(A), len(x))
    wrapper.add_shrink(h, x, tuple(A), scale)
    wrapper.add_expand(y, h, tuple(B), tuple(slices), add_inputs=add_inputs)


_library.impl("tapped_lora", _tapped_lora, "CompositeExplicitAutograd")
torch.library.register_fake(
    "openledger::tapped_lora", lambda y, x, A, B, scale, slices, handle, first, add_inputs: None, lib=_library
)
