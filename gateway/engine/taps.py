"""The static buffer in which every LoRA module leaves its shrink output `h = A x`."""

from collections.abc import Mapping, Sequence

import torch

from kernels.tap import Taps

Slices = tuple[int, ...]


class TapBuffer:
    """h of every tapped module for the tokens of the current step: [taps, max_tokens, max_rank], fp32.

    `modules` maps the address of a module's stacked `lora_a` (the only name the LoRA operation knows it by) to its
    tap rows, which follow each other: one for a plain linear layer, three for a packed q/k/v projection.
    """

    def __init__(
        self,
        names: Sequence[str],
        modules: Mapping[int, Slices],
        max_tokens: int,
        max_rank: int,
        device: torch.device | str = "cpu",
    ):
        self.index = {name: row for row, name in enumerate(names)}
        self.max_rank = max_rank
        self._modules = dict(modules)
        self.wanted: set[int] | None = None  # rows that are read; None: all
        first = list(range(len(names)))
        for rows in modules.values():
            for row in rows:
                first[row] = rows[0]
        self.static = Taps(first, max_tokens, max_rank, device)
        self.h = self.static.kept

    def first_row(self, address: int) -> int | None:
        """The first tap row of the module at `address`; None where nothing is tapped."""
        rows = self._modules.get(address)
        return rows[0] if rows else None

    def write(self, address: int, index: int, rows: torch.Tensor | None, h: torch.Tensor) -> None:
        """Keeps h [tokens, rank] of one slice of the module at `address`, for the given token rows (None: all)."""
        tap = self._modules.get(address)
        if tap is None or (self.wanted is not None and tap[index] not in self.wanted):
            return
        target = self.h[tap[index], :, : h.shape[1]]
        if rows is None:
            target[: len(h)] = h
        else:
            target[rows] = h.float()

    def gather(self, taps: torch.Tensor, tokens: torch.Tensor, rank: int) -> torch.Tensor:
        """h at the given token positions: [tokens, taps, rank]."""
        return self.static.sampled(taps, tokens, rank)


def tap_modules(
    lora_modules: Mapping[str, object], packed: Mapping[str, Sequence[str]]
) -> tuple[list[str], dict[int, Slices]]:
    """Names of all taps in PEFT's naming, and which rows each LoRA layer fills.

    `lora_modules` are the LoRA layers by vLLM's name, `packed` the PEFT names merged into one layer.
    """
    names: list[str] = []
    rows: dict[int, Slices] = {}
    for name, module in lora_modules.items():
        stacked = getattr(module, "lora_a_stacked", None)
        parts = list(packed.get(name, (name,)))
        if not isinstance(stacked, tuple) or len(stacked) != len(parts):
            continue
        rows[stacked[0].data_ptr()] = tuple(range(len(names), len(names) + len(parts)))
        names += parts
    return names, rows
