"""Per-token scores from scratch, in transformers and peft: the yardstick for what the engine serves.

Imports nothing of kernels/ or gateway/engine/. Everything in fp64 but for the model's own forward pass, which has the
dtype it is given.
"""

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM


class Recomputer:
    """Scores of given tokens under given adapters of one base model."""

    def __init__(self, base: Path, dtype: torch.dtype = torch.float32):
        self.base = base
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval()
        self.peft: PeftModel | None = None

    def _activate(self, package: Path) -> PeftModel:
        name = package.name
        if self.peft is None:
            self.peft = PeftModel.from_pretrained(
                self.model, str(package), adapter_name=name, autocast_adapter_dtype=False
            )
        elif name not in self.peft.peft_config:
            self.peft.load_adapter(str(package), adapter_name=name, autocast_adapter_dtype=False)
        self.peft.set_adapter(name)
        return self.peft.eval()

    @torch.no_grad()
    def scores(self, package: Path, prompt_ids: list[int], token_ids: list[int]) -> torch.Tensor:
        """Nats [tokens, contributors] by docs/ARCHITECTURE.md's equation, one forward pass over prompt and tokens."""
        with safe_open(package / "attribution_head.safetensors", framework="pt") as file:
            metadata = file.metadata()
            head = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118
        taps = json.loads(metadata["taps"])
        model = self._activate(package)
        kept: dict[str, torch.Tensor] = {}
        hooks = [
            model.get_submodule(f"base_model.model.{tap}.lora_A.{package.name}").register_forward_hook(
                lambda _module, _inputs, output, tap=tap: kept.__setitem__(tap, output[0].double())
            )
            for tap in taps
        ]
        causal = model.get_base_model()
        hooks.append(
            causal.get_submodule("model.norm").register_forward_hook(
                lambda _m, _i, output: kept.__setitem__("norm", output[0].double())
            )
        )
        try:
            logits = model(torch.tensor([prompt_ids + token_ids])).logits[0].double()
        finally:
            for hook in hooks:
                hook.remove()
        at = torch.arange(len(prompt_ids) - 1, len(prompt_ids) + len(token_ids) - 1)
        h = torch.stack([kept[tap][at] for tap in taps], dim=1)
        u = self._direction(logits[at], torch.tensor(token_ids), kept["norm"][at], causal) @ head["P"]
        if "H" in head:
            h = torch.einsum("nmr,mrd->nd", h, head["H"])[:, None]
        scores = torch.einsum("nk,cmkr,nmr->nc", u, head["K"], h)
        return scores @ head["Q"].T if "Q" in head else scores

    @staticmethod
    def _direction(z, y, n, causal) -> torch.Tensor:
        """u = g (W[y] - sum_v w_v W[v] - (1 - sum_v w_v) mean(W)) - ((z_y - q.z)/D) n/g, words below 0.0003 as the
        mean word."""
        g, W_U = causal.model.norm.weight.double(), causal.lm_head.weight.double()
        rows = torch.arange(len(y))
        masked = z.clone()
        masked[rows, y] = -torch.inf
        q = masked.softmax(-1)
        w = q * (q / 3e-4 - 1).clamp(0, 1)
        slope = (z[rows, y] - (q * z).sum(-1)) / len(g)
        expected = w @ W_U + (1 - w.sum(-1, keepdim=True)) * W_U.mean(0)
        return g * (W_U[y] - expected) - slope[:, None] * n / g
