"""Per-position gradients of LoRA modules, read with hooks in one backward pass.

The output of lora_B at position t is B h_t, h_t = A x_t. With g_t the gradient of the loss there (which carries the
LoRA scaling), the gradient of B is sum_t g_t h_t^T: any grouping of positions gives that group's gradient for free.
"""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn

from adapters.training.model import AdaptedModel


class Capture:
    """Context manager that keeps h [b, T, r] and, after backward, g [b, T, out] of every LoRA module.

    Enter before the forward pass; `h` and `g` are dictionaries by module path.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self._model = model
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.h: dict[str, Tensor] = {}
        self.g: dict[str, Tensor] = {}

    def __enter__(self) -> Capture:
        for name, (_, b) in self._model.modules.items():
            self._hooks.append(b.register_forward_hook(self._forward_hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _forward_hook(self, name: str):
        def keep(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self.h[name] = args[0].detach()
            if output.requires_grad:
                output.register_hook(lambda gradient: self.g.__setitem__(name, gradient))

        return keep

    def by_owner(self, owner: Tensor, contributors: int) -> Tensor:
        """Gradient of B per contributor [C, P], P over all modules in order; `owner` [b] names each row's contributor.

        G_c = sum_{rows of c} sum_t g_t h_t^T. A contributor without a row gets exact zeros.
        """
        parts = []
        for name in self._model.modules:
            rows = self.g[name].transpose(1, 2) @ self.h[name]
            total = rows.new_zeros(contributors, *rows.shape[1:]).index_add_(0, owner, rows)
            parts.append(total.flatten(1))
        return torch.cat(parts, dim=1)
