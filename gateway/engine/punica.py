"""vLLM's LoRA operations for linear layers on CPU: a pair of matrix products per adapter, no weight gather per token.

vLLM's own CPU path copies A and B once per token (`bgmv`): on 2 cores, 32 requests of the 135M model decode at 225
tokens/s without an adapter and at 116 with one; this one reaches 206 with attribution on (one development run on busy
cores, to be repeated by `make bench-serving`). vLLM's also indexes rows
without an adapter with -1, the last slot, so that base-model requests get that slot's adapter when all slots are full.
Grouping rows by adapter avoids both, and skips the layers an adapter leaves alone.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from gateway.engine.taps import TapBuffer


class Group(NamedTuple):
    """The batch's tokens that run on one adapter; `rows` is None when that is all of them."""

    slot: int
    adapter_id: int
    rows: torch.Tensor | None


class GroupedPunicaWrapperCPU(PunicaWrapperCPU):
    """Leaves `h = A x` of every LoRA module in `taps` (None: not wanted); does nothing in steps without an adapter."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.taps: TapBuffer | None = None
        self._groups: list[Group] = []
        self._ranks: dict[tuple[int, int], int] = {}

    def note_ranks(self, adapter_id: int, ranks: Mapping[int, int]) -> None:
        """What the loader knows of an adapter that is about to get a slot: its rank in each layer, by address."""
        self._ranks |= {(address, adapter_id): rank for address, rank in ranks.items()}

    def update_metadata(self, mapping: Any, lora_index_to_id: list[int | None], *args: Any, **kwargs: Any) -> None:
        super().update_metadata(mapping, lora_index_to_id, *args, **kwargs)
        slots = {adapter_id: slot for slot, adapter_id in enumerate(lora_index_to_id) if adapter_id is not None}
        self._ranks = {key: rank for key, rank in self._ranks.items() if key[1] in slots}
        rows: dict[int, list[int]] = defaultdict(list)
        for row, adapter_id in enumerate(mapping.index_mapping):
            if adapter_id:
                rows[adapter_id].append(row)
        tokens = len(mapping.index_mapping)
        self._groups = [
            Group(slots[adapter_id], adapter_id, None if len(own) == tokens else torch.tensor(own))
            for adapter_id, own in rows.items()
        ]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """y[rows, slice] += scale (x[rows] A^T) B^T per adapter, slice; A [slots, 1, r, in], B [slots, 1, out, r]."""
        address = lora_a_stacked[0].data_ptr()
        for slot, adapter_id, rows in self._groups:
            rank = self._rank(lora_a_stacked, address, slot, adapter_id)
            if rank == 0:
                continue
            own = x if rows is None else x.index_select(0, rows)
            start = 0
            for index, (A, B, width) in enumerate(zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True)):
                h = own @ A[slot, 0, :rank].T
                if self.taps is not None:
                    self.taps.write(address, index, rows, h)
                out = y[:, start : start + width]
                delta = h @ B[slot, 0, :, :rank].T
                if scale != 1.0:
                    delta *= scale
                if rows is None:
                    out += delta
                else:
                    out.index_add_(0, rows, delta)
                start += width

    def _rank(self, stacked: tuple[torch.Tensor, ...], address: int, slot: int, adapter_id: int) -> int:
        """Rows of A an adapter uses in a module: 0 where it does not adapt the module. Adapter ids are never reused."""
        key = (address, adapter_id)
        if key not in self._ranks:
            used = torch.stack([A[slot, 0].abs().amax(dim=1) > 0 for A in stacked]).any(dim=0)
            self._ranks[key] = int(used.nonzero().max()) + 1 if used.any() else 0
        return self._ranks[key]
