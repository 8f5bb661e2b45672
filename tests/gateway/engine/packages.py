"""Adapter packages with random weights and random heads, for tests of the serving path: real files, no training."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_package(
    base: Path,
    out: Path,
    *,
    seed: int,
    contributors: list[str],
    k: int = 24,
    d: int = 6,
    m: int = 0,
    r: int = 8,
    layers: range = range(20, 30),
) -> Path:
    """A PEFT LoRA whose B is random, so that it changes the answers; with contributors, a random head on all taps, of d
    tap directions or, with d = 0, of every rank of every tap, with m of so many contributor factors."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    width = model.config.hidden_size
    config = LoraConfig(
        r=r, lora_alpha=2 * r, target_modules=TARGETS, layers_to_transform=list(layers), task_type="CAUSAL_LM"
    )
    lora = get_peft_model(model, config)
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    lora.peft_config["default"].base_model_name_or_path = json.loads((base / "base.json").read_text())["name"]
    lora.save_pretrained(str(out))
    for stray in (out / "README.md",):
        stray.unlink(missing_ok=True)
    if contributors:
        taps = sorted(
            {
                n.split(".lora_A")[0].removeprefix("base_model.model.")
                for n, _ in lora.named_parameters()
                if "lora_A" in n
            }
        )
        P = torch.linalg.qr(torch.randn(width, k))[0].contiguous()
        shape = (1, k, d) if d else (len(taps), k, r)
        tensors = {"P": P, "K": torch.randn(m or len(contributors), *shape) / (len(taps) * k * r) ** 0.5}
        tensors |= {"H": torch.randn(len(taps), r, d) / (len(taps) * r) ** 0.5} if d else {}
        tensors |= {"Q": torch.linalg.qr(torch.randn(len(contributors), m))[0].contiguous()} if m else {}
        metadata = {
            "format": "openledger-head/1",
            "base": json.loads((base / "base.json").read_text())["digest"],
            "weights": "sha256:" + sha256((out / "adapter_model.safetensors").read_bytes()).hexdigest(),
            "taps": json.dumps(taps),
            "contributors": json.dumps(sorted(contributors)),
            "method": "random",
        }
        save_file(tensors, out / "attribution_head.safetensors", metadata)
    return out
