"""Adapter packages for a real base model, written without torch: random weights, a random head, a training record."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from adapters.base import BaseModel
from adapters.canonical import canonical_json
from adapters.digests import digest

RANK, WIDTH = 4, 8


@dataclass(frozen=True)
class PackageWriter:
    """Packages for `base` on the down projections of its last two layers."""

    base: BaseModel

    def write(self, directory: Path, seed: int, scale: float = 0.05) -> Path:
        """A plain PEFT package; with scale 0 it changes nothing."""
        directory.mkdir(parents=True, exist_ok=True)
        rng, tensors = np.random.default_rng(seed), {}
        for tap in self.taps():
            shape, name = self.base.modules[tap], f"base_model.model.{tap}"
            tensors[f"{name}.lora_A.weight"] = rng.normal(size=(RANK, shape.in_features)).astype("f4")
            tensors[f"{name}.lora_B.weight"] = (scale * rng.normal(size=(shape.out_features, RANK))).astype("f4")
        save_file(tensors, directory / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": RANK,
            "lora_alpha": 8,
            "target_modules": ["down_proj"],
            "layers_to_transform": [self.base.layers - 2, self.base.layers - 1],
            "bias": "none",
        }
        (directory / "adapter_config.json").write_text(json.dumps(config))
        return directory

    def write_head(self, directory: Path, datanet: str, version: str, tokens: dict[str, int], seed: int = 0) -> None:
        """A training record and a head for the contributors of `tokens`, beside the weights."""
        weights = "sha256:" + hashlib.sha256((directory / "adapter_model.safetensors").read_bytes()).hexdigest()
        record = {
            "type": "training-record",
            "base": self.base.digest,
            "datanet": datanet,
            "datanet_version": version,
            "trainer": "operator",
            "host": "operator",
            "weights": weights,
            "contributors": {name: {"tokens": count} for name, count in tokens.items()},
            "hyperparameters": {},
        }
        (directory / "training_record.json").write_bytes(canonical_json(record))
        fidelity = canonical_json({"type": "fidelity", "fidelity_ppm": 0})
        (directory / "fidelity.json").write_bytes(fidelity)
        metadata = {
            "format": "openledger-head/1",
            "base": self.base.digest,
            "weights": weights,
            "taps": json.dumps(self.taps()),
            "contributors": json.dumps(sorted(tokens)),
            "method": "trace",
            "datanet_version": version,
            "fidelity": digest(fidelity),
        }
        rng = np.random.default_rng(seed)
        shapes = {"K": (len(tokens), 2, WIDTH, RANK), "P": (self.base.hidden_size, WIDTH)}
        tensors = {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}
        save_file(tensors, directory / "attribution_head.safetensors", metadata)

    def taps(self) -> list[str]:
        layers = (self.base.layers - 2, self.base.layers - 1)
        return [f"model.layers.{layer}.mlp.down_proj" for layer in layers]
