"""vLLM's CPU LoRA operations, writing every shrink output into the tap buffer."""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from gateway.engine.taps import TapBuffer


class TappedPunicaWrapperCPU(PunicaWrapperCPU):
    """Leaves `h = A x` of every LoRA module in `taps`, and does nothing at all in steps without an adapter."""

    taps: TapBuffer | None = None
    _any_adapter = True

    def update_metadata(self, mapping: Any, *args: Any, **kwargs: Any) -> None:
        self._any_adapter = any(mapping.index_mapping)
        super().update_metadata(mapping, *args, **kwargs)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        if not self._any_adapter:
            return
        if buffer is None and self.taps is not None:
            buffer = self.taps.buffers(lora_a_stacked[0].data_ptr(), x.size(0))
        super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, buffer=buffer, **kwargs)
