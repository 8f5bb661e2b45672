"""A decode step of a random 8B-shaped model, as the yardstick for what attribution adds."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu


@dataclass(frozen=True)
class Model:
    """Sizes of a Llama-like decoder with grouped key and value heads."""

    layers: int = 32
    D: int = 4096
    heads: int = 32
    kv_heads: int = 8
    hidden: int = 14336
    V: int = 128256
    head_dim: int = 128


class DecodeStep:
    """One token for each of n sequences that all have `context` tokens in the cache. Rotary embeddings and the cache's
    write are left out: a few MB beside 16 GB of weights."""

    def __init__(self, model: Model, n: int, context: int, device: str = "cuda") -> None:
        def tensor(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=torch.bfloat16, device=device).mul_(0.02)

        qkv = (model.heads + 2 * model.kv_heads) * model.head_dim
        self.model = model
        self.x = tensor(n, model.D)
        self.head = tensor(model.V, model.D)
        self.layers = [
            (
                tensor(qkv, model.D),
                tensor(model.D, model.heads * model.head_dim),
                tensor(2 * model.hidden, model.D),
                tensor(model.D, model.hidden),
                tensor(n, model.kv_heads, context, model.head_dim),
                tensor(n, model.kv_heads, context, model.head_dim),
            )
            for _ in range(model.layers)
        ]

    def __call__(self) -> Tensor:
        """fp32 logits [n, V]."""
        model, x = self.model, self.x
        n, size = len(x), [model.D]
        for w_qkv, w_o, w_up, w_down, keys, values in self.layers:
            q = linear(rms_norm(x, size), w_qkv)[:, : model.heads * model.head_dim]
            # query heads that share a key head are queries of one attention: no mask, the cache is all past
            q = q.reshape(n, model.kv_heads, -1, model.head_dim)
            x = x + linear(scaled_dot_product_attention(q, keys, values).reshape(n, -1), w_o)
            gate, up = linear(rms_norm(x, size), w_up).chunk(2, 1)
            x = x + linear(silu(gate) * up, w_down)
        return linear(rms_norm(x, size), self.head).float()
