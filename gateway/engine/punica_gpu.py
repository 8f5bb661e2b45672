"""vLLM's LoRA operations for linear layers on a GPU, with the tap behind the shrink.

Not run on a GPU yet; `python -m gateway.engine.gpu_check` is the check to run there.
"""

import copy
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU

from gateway.engine.taps import TapBuffer


class TappedPunicaWrapperGPU(PunicaWrapperGPU):  # type: ignore[misc]
    """Keeps the shrink's buffer y [slices, tokens, max_rank] in the static tap buffer, inside the compiled graph.

    The compiled graph cannot ask a tensor for its address, so each tapped layer gets a wrapper of its own, in which the
    number of its first tap row is a constant (`tapped`). What vLLM changes from step to step lives in objects that
    all these wrappers share: the mapping tensors of `token_mapping_meta`.
    """

    taps: TapBuffer | None = None
    first_row: int = -1

    def tapped(self, taps: TapBuffer, first_row: int) -> "TappedPunicaWrapperGPU":
        """This wrapper, for the layer whose tap rows start at `first_row`."""
        own = copy.copy(self)
        own.taps, own.first_row = taps, first_row
        return own

    def add_shrink(self, y: Any, x: torch.Tensor, lora_a_stacked: Any, scale: float, **kwargs: Any) -> None:
        """y[i] = scale x A_i^T by vLLM's kernel, then one opaque operator that copies y to where the scores look."""
        super().add_shrink(y, x, lora_a_stacked, scale, **kwargs)
        if self.taps is not None:
            self.taps.static.keep(y, self.first_row)
