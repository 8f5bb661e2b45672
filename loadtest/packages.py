"""Adapter packages with random weights and a random head: real files of any size, written without torch or training.

docs/formats/adapter-package.md is what they follow. What such an adapter says is noise; what it costs to serve is not.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FILES = ("adapter_config.json", "adapter_model.safetensors", "attribution_head.safetensors", "fidelity.json")
TAP_DIRECTIONS = 8  # what `openledger adapter train` makes by default
HEAD_RMS = 1e-3  # of the elements of K: scores of a usual size


@dataclass(frozen=True)
class Base:
    """What of a base model decides the shapes of an adapter: read from its config.json and base.json."""

    name: str
    digest: str
    layers: int
    width: int
    shapes: dict[str, tuple[int, int]]  # module: (out, in) features

    @classmethod
    def read(cls, directory: Path) -> "Base":
        """A Llama-like model directory that a gateway has served (base.json holds its digest)."""
        config = json.loads((directory / "config.json").read_bytes())
        recorded = json.loads((directory / "base.json").read_bytes())
        width, inner = config["hidden_size"], config["intermediate_size"]
        head = config.get("head_dim") or width // config["num_attention_heads"]
        queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
        shapes = {
            "self_attn.q_proj": (queries, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, queries),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        return cls(recorded["name"], recorded["digest"], config["num_hidden_layers"], width, shapes)


@dataclass(frozen=True)
class Shape:
    """The size of an adapter: rank, how many layers from the top, which modules; its head's readout directions k."""

    rank: int = 8
    layers: int = 8
    modules: tuple[str, ...] = ALL_LINEAR
    k: int = 64


def write_package(base: Base, directory: Path, shape: Shape, seed: int) -> Path:
    """A PEFT LoRA of `shape` with random A and B."""
    directory.mkdir(parents=True)
    rng, tensors = np.random.default_rng(seed), {}
    for path, (out_features, in_features) in _modules(base, shape).items():
        name = f"base_model.model.{path}"
        a = rng.standard_normal((shape.rank, in_features), dtype="f4") / np.sqrt(in_features, dtype="f4")
        tensors[f"{name}.lora_A.weight"] = a
        tensors[f"{name}.lora_B.weight"] = rng.standard_normal((out_features, shape.rank), dtype="f4") / np.float32(50)
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": shape.rank,
        "lora_alpha": 2 * shape.rank,
        "target_modules": list(shape.modules),
        "layers_to_transform": list(_layers(base, shape)),
        "bias": "none",
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def write_head(base: Base, directory: Path, shape: Shape, seed: int, contributors: list[str], version: str) -> None:
    """A random head beside the weights in `directory`: one row for each contributor of a Datanet version."""
    weights = directory / "adapter_model.safetensors"
    taps = sorted(_modules(base, shape))
    fidelity = canonical({"fidelity_ppm": 0, "type": "fidelity"})
    (directory / "fidelity.json").write_bytes(fidelity)
    metadata = {
        "format": "openledger-head/1",
        "base": base.digest,
        "weights": digest(weights.read_bytes()),
        "taps": json.dumps(taps),
        "contributors": json.dumps(sorted(contributors)),
        "method": "trace",
        "datanet_version": version,
        "fidelity": digest(fidelity),
    }
    rng = np.random.default_rng(seed)
    sizes = {
        "K": (len(contributors), 1, shape.k, TAP_DIRECTIONS),
        "P": (base.width, shape.k),
        "H": (len(taps), shape.rank, TAP_DIRECTIONS),
    }
    tensors = {name: rng.standard_normal(size, dtype="f4") for name, size in sizes.items()}
    tensors["K"] *= np.float32(HEAD_RMS)
    tensors["P"] /= np.sqrt(base.width, dtype="f4")
    tensors["H"] /= np.sqrt(len(taps) * shape.rank, dtype="f4")
    save_file(tensors, directory / "attribution_head.safetensors", metadata)


def archive(directory: Path) -> bytes:
    """The package as the uncompressed tar that the gateway takes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in FILES:
            if (directory / name).exists():
                tar.add(directory / name, arcname=name)
    return out.getvalue()


def package_bytes(directory: Path) -> int:
    """Bytes of all files of a package."""
    return sum(path.stat().st_size for path in directory.iterdir())


def canonical(value: dict[str, Any]) -> bytes:
    """RFC 8785 for the flat objects of plain ASCII strings and integers that are written here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _layers(base: Base, shape: Shape) -> range:
    return range(max(base.layers - shape.layers, 0), base.layers)


def _modules(base: Base, shape: Shape) -> dict[str, tuple[int, int]]:
    """{path: (out, in)} of the adapted modules."""
    return {
        f"model.layers.{layer}.{module}": features
        for layer in _layers(base, shape)
        for module, features in base.shapes.items()
        if module.split(".")[1] in shape.modules
    }
