"""Many small LoRAs side by side over one frozen base model: rows of a batch belong to different runs.

Run i of G owns the i-th G-th of the rows. The frozen layers see all rows as one batch; A and B are stacked, so a LoRA
is two batched matrix products. Whether that pays depends on the machine: docs/ATTRIBUTION.md, "The subset bank".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adapters.training.config import TrainingConfig
from adapters.training.model import SplitModel, draw_a


class StackedLora(nn.Module):
    """base(x) + (alpha / r) B_i A_i x for the rows of run i. A [G, r, in] and B [G, out, r] are set by StackedModel."""

    def __init__(self, base: nn.Linear, scaling: float) -> None:
        super().__init__()
        self.base = base
        self.scaling = scaling
        self.a: Tensor = torch.empty(0)
        self.b: Tensor = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """x [G * b, T, in]."""
        stacked = x.unflatten(0, (len(self.a), -1)).flatten(1, 2)
        h = torch.bmm(stacked, self.a.transpose(1, 2).to(x.dtype))
        delta = torch.bmm(h, self.b.transpose(1, 2).to(x.dtype)) * self.scaling
        return self.base(x) + delta.view(*x.shape[:-1], -1)


class StackedModel(SplitModel):
    """`parameter` [G, P]: what is trained of every run, fp32, in the order of AdaptedModel's flat parameter."""

    def __init__(self, causal_lm: Any, config: TrainingConfig) -> None:
        causal_lm.requires_grad_(False)
        causal_lm.eval()
        super().__init__(causal_lm, max(0, causal_lm.config.num_hidden_layers - config.layers))
        self._r, self._train_a = config.r, config.train_a
        self._loras: list[StackedLora] = []
        chosen = [
            name
            for name, module in causal_lm.named_modules()
            if isinstance(module, nn.Linear)
            and name.rsplit(".", 1)[-1] in config.target_modules
            and int(name.split(".")[2]) >= self.first_layer
        ]
        for name in chosen:
            parent, _, leaf = name.rpartition(".")
            lora = StackedLora(causal_lm.get_submodule(name), config.lora_alpha / config.r)
            setattr(causal_lm.get_submodule(parent), leaf, lora)
            self._loras.append(lora)
        self.parameter = torch.empty(0)
        self._trained: list[nn.Parameter] = []

    def start(self, seeds: Sequence[int]) -> None:
        """Runs of these seeds, untrained: A as `add_lora` draws it, B zero."""
        device = self._loras[0].base.weight.device
        shapes = [torch.Size((self._r, lora.base.in_features)) for lora in self._loras]
        drawn = [torch.stack(of_runs).to(device) for of_runs in zip(*(draw_a(shapes, s) for s in seeds), strict=True)]
        zeros = [torch.zeros(len(seeds), lora.base.out_features, self._r, device=device) for lora in self._loras]
        initial = [*zeros, *drawn] if self._train_a else zeros
        self.parameter = torch.cat([start.flatten(1) for start in initial], dim=1)
        widths = [start[0].numel() for start in initial]
        self._trained = [
            nn.Parameter(view.unflatten(1, start.shape[1:]))
            for view, start in zip(self.parameter.split(widths, dim=1), initial, strict=True)
        ]
        all_b, trained_a = self._trained[: len(zeros)], self._trained[len(zeros) :]
        all_a: Sequence[Tensor] = trained_a or [start.to(self.dtype) for start in drawn]
        for lora, a, b in zip(self._loras, all_a, all_b, strict=True):
            lora.a, lora.b = a, b

    def gradient(self) -> Tensor:
        """The gradient [G, P] since the last call, which clears it."""
        parts = []
        for piece in self._trained:
            assert piece.grad is not None
            parts.append(piece.grad.flatten(1))
            piece.grad = None
        return torch.cat(parts, dim=1)
