"""Per-position gradients of LoRA modules, read with hooks in one backward pass.

The output of lora_B at position t is B h_t, h_t = A x_t. With g_t the gradient of the loss there (which carries the
LoRA scaling), the gradient of B is sum_t g_t h_t^T: any grouping of positions gives that group's gradient for free.
A trained A is the same once more: its input is x_t, and the gradient at its output is B^T g_t.
"""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn

from adapters.training.model import AdaptedModel


class Capture:
    """Context manager that keeps the input h [b, T, in] and, after backward, g [b, T, out] of what is trained.

    Enter before the forward pass; `h` and `g` are dictionaries by the names of `model.trained`: under a module's path
    h is A x [b, T, r].
    """

    def __init__(self, model: AdaptedModel) -> None:
        self._model = model
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.h: dict[str, Tensor] = {}
        self.g: dict[str, Tensor] = {}

    def __enter__(self) -> Capture:
        for name, linear in self._model.trained.items():
            self._hooks.append(linear.register_forward_hook(self._forward_hook(name)))
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
        """Gradient per contributor [C, P], P over all that is trained, in order; `owner` [b]: each row's contributor.

        G_c = sum_{rows of c} sum_t g_t h_t^T. A contributor without a row gets exact zeros.
        """
        parts = []
        for name in self._model.trained:
            rows = self.g[name].transpose(1, 2) @ self.h[name]
            total = rows.new_zeros(contributors, *rows.shape[1:]).index_add_(0, owner, rows)
            parts.append(total.flatten(1))
        return torch.cat(parts, dim=1)
