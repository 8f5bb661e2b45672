"""A tiny random Llama, and examples for it, for tests of training and heads."""

import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adapters.training.config import TrainingConfig
from adapters.training.model import AdaptedModel, add_lora
from adapters.training.tokens import TokenExample

CONTRIBUTORS = 3


def tiny_base(dtype: torch.dtype = torch.float32, layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    base = LlamaForCausalLM(config).to(dtype).eval()
    with torch.no_grad():
        base.model.norm.weight.uniform_(0.5, 1.5)
    return base


def tiny_config(**changes: object) -> TrainingConfig:
    values: dict[str, object] = {
        "r": 4,
        "lora_alpha": 8,
        "layers": 2,
        "max_epochs": 3,
        "batch_packs": 3,
        "pack_tokens": 40,
        "learning_rate_ppm": 2_000,
        "warmup_steps": 3,
        "stop_loss_ppm": 1,
        "checkpoint_every_s": 0,
        "threads": 1,
    }
    return TrainingConfig(**{**values, **changes})  # type: ignore[arg-type]


def tiny_model(dtype: torch.dtype = torch.float32, **changes: object) -> AdaptedModel:
    return add_lora(tiny_base(dtype), tiny_config(**changes), "tiny", seed=0)


def trained_looking(model: AdaptedModel, seed: int = 3) -> AdaptedModel:
    """Give B random values, so that no gradient vanishes by symmetry."""
    draw = torch.Generator().manual_seed(seed)
    model.parameter.copy_(torch.randn(model.parameter.shape, generator=draw, dtype=model.parameter.dtype) * 0.1)
    return model


def tiny_examples(count: int = 14, prefix: int = 4, owners: int = CONTRIBUTORS) -> list[TokenExample]:
    draw = random.Random(5)
    shared = [draw.randrange(3, 97) for _ in range(prefix)]
    examples = []
    for index in range(count):
        own = [draw.randrange(3, 97) for _ in range(draw.randrange(5, 12))]
        supervised = [False] * (prefix + 2) + [True] * (len(own) - 2)
        examples.append(TokenExample(index % owners, (*shared, *own), tuple(supervised)))
    return examples
