"""Base models of a given shape with random weights: what serving costs hardly depends on what they say."""

import json
from math import prod
from pathlib import Path

import numpy as np

from loadtest.prompts import WORDS

SHAPES = {
    "8b": {
        **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256},
        **{"num_attention_heads": 32, "num_key_value_heads": 8},
    },
    "tiny": {
        **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512},
        **{"num_attention_heads": 2, "num_key_value_heads": 1},
    },
}
"""Sizes by name, as Llama's config.json has them: 8b is Llama 3's."""

ITEM_BYTES = 2
STD = 1 / 64
PEAKED = 1 / 16  # of the unembedding: at a width of 4096 the logits vary by 4 nats, some 200 words are above 0.0003
BLOCK = 100_000_007


def make_base(directory: Path, shape: str) -> Path:
    """Writes a Llama-like model directory of a shape in SHAPES, with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    directory.mkdir(parents=True)
    sizes = SHAPES[shape]
    config = {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "hidden_act": "silu"},
        **{"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "initializer_range": 0.02},
        **{"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "use_cache": True},
        **sizes,
        "head_dim": sizes["hidden_size"] // sizes["num_attention_heads"],
    }
    (directory / "config.json").write_text(json.dumps(config))
    words = ["<unk>", "<s>", "</s>", "Write", "a", "short", "text", "about", ":", ".", *dict.fromkeys(WORDS)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    vocabulary |= {f"w{i}": i for i in range(len(vocabulary), sizes["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens["chat_template"] = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, **tokens})
    )
    _write_weights(directory / "model.safetensors", dict(_tensors(sizes)))
    return directory


def _tensors(sizes: dict[str, int]) -> list[tuple[str, tuple[int, ...]]]:
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    keys = width // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
    found: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", (sizes["vocab_size"], width)),
        ("model.norm.weight", (width,)),
        ("lm_head.weight", (sizes["vocab_size"], width)),
    ]
    of_layer = {
        **{"self_attn.q_proj": (width, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width)},
        **{"self_attn.o_proj": (width, width), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width)},
        **{"mlp.down_proj": (width, inner), "input_layernorm": (width,), "post_attention_layernorm": (width,)},
    }
    for layer in range(sizes["num_hidden_layers"]):
        found += [(f"model.layers.{layer}.{module}.weight", shape) for module, shape in of_layer.items()]
    return found


def _write_weights(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file in bf16: norms of 1, all else drawn in turn from one long block of random numbers.

    The block's length is no multiple of any row's, so no two rows are alike.
    """
    header, end = {}, 0
    for name, shape in tensors.items():
        size = ITEM_BYTES * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    longest = max(map(prod, tensors.values()))
    normal = np.random.default_rng(0).standard_normal(min(longest, BLOCK), dtype="f4")
    blocks = {std: _bf16(std * normal) for std in (STD, PEAKED)}
    at = 0
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for name, shape in tensors.items():
            if len(shape) == 1:
                file.write(_bf16(np.ones(shape, dtype="f4")).tobytes())
                continue
            block, left = blocks[PEAKED if name == "lm_head.weight" else STD], prod(shape)
            while left:
                piece = block[at : at + left]
                file.write(piece.tobytes())
                left -= len(piece)
                at = (at + len(piece)) % len(block)


def _bf16(values: np.ndarray) -> np.ndarray:
    return (values.view("u4") >> 16).astype("u2")
