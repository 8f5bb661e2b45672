"""Gradients of single sequences in B, for the methods that no library here has or that take gradients as given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters.bench.peers.reader import Rows, Upper


def per_example(upper: Upper, rows: Rows, *, margin: bool, batch: int = 8) -> Tensor:
    """Gradient of each sequence's summed log p, or of its summed margin, in all B: [N, P] fp32.

    P runs over `upper.lora_modules()` in order, each [out, r] flat. With h the input of B and g the gradient at its
    output, the gradient of one sequence is sum_t g_t h_t^T.
    """
    modules = {name: upper.get_submodule(name) for name in upper.lora_modules()}
    found = []
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        h: dict[str, Tensor] = {}
        g: dict[str, Tensor] = {}
        hooks = [module.register_forward_hook(_keep(name, h, g)) for name, module in modules.items()]
        try:
            arguments = [tensor[part] for tensor in rows.tensors()]
            upper(*arguments, margin=margin).sum().backward(inputs=[module.weight for module in modules.values()])
        finally:
            for hook in hooks:
                hook.remove()
        for module in modules.values():
            module.weight.grad = None
        found.append(torch.cat([torch.einsum("bto,btr->bor", g[n], h[n]).flatten(1) for n in modules], dim=1))
    return torch.cat(found)


def _keep(name: str, h: dict[str, Tensor], g: dict[str, Tensor]):
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        h[name] = inputs[0].detach()
        output.register_hook(lambda gradient: g.__setitem__(name, gradient))

    return hook
