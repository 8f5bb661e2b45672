"""The base model that is served: its digest and the shapes of the modules an adapter may change. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """A linear layer y = W x: W is (out_features, in_features)."""

    out_features: int
    in_features: int


@dataclass(frozen=True)
class BaseModel:
    """A base model: `modules` maps paths such as `model.layers.0.mlp.down_proj` to shapes."""

    name: str
    digest: str
    hidden_size: int
    vocab_size: int
    layers: int
    modules: Mapping[str, ModuleShape]

    @classmethod
    def from_directory(cls, path: Path, name: str | None = None) -> "BaseModel":
        """Describe a Hugging Face model directory (safetensors, sharded or not) from its headers and config.json.

        The digest is that of canonical `{"files": {name: digest}, "type": "base"}` over the weight, config and
        tokenizer files. Hashing reads about 1 GB/s; the result is kept in `base.json` and reused while every file's size
        and modification time stay the same. Raises UnsupportedBase.
        """
        raise NotImplementedError
