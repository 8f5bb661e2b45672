"""The base model that is served: its digest and the shapes of the modules an adapter may change. Torch-free."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.canonical import canonical_json
from adapters.digests import digest, file_digest
from adapters.errors import BadSafetensors, UnsupportedBase
from adapters.tensors import read_header

CACHE = "base.json"
INDEX = "model.safetensors.index.json"
SIDE_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    INDEX,
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""Files beside the weights that decide what a model answers; those that exist enter the digest."""

_LAYER_WEIGHT = re.compile(r"(?P<module>(?:[A-Za-z_]\w*\.)*layers\.\d+\.[\w.]+)\.weight")


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

        `modules` are the two-dimensional weights under `layers.<n>`: in Llama-like models, the linear layers.
        `name` defaults to the one in base.json, else to the directory's. The digest is `base_digest`'s.
        Raises UnsupportedBase.
        """
        config = _read_config(path)
        shapes = dict(_module_shapes(path))
        if not shapes:
            raise UnsupportedBase(f"{path} holds no unquantised linear layer under `layers.<n>`")
        return cls(
            name=name or _read_cache(path).get("name") or path.resolve().name,
            digest=base_digest(path, name),
            hidden_size=_size(path, config, "hidden_size"),
            vocab_size=_size(path, config, "vocab_size"),
            layers=_size(path, config, "num_hidden_layers"),
            modules=shapes,
        )


def base_digest(path: Path, name: str | None = None) -> str:
    """The digest of a base model: that of canonical `{"files": {name: digest}, "type": "base"}`.

    The files are all `*.safetensors` (those of the index, where there is one) and the SIDE_FILES that exist. Hashing
    SmolLM2-135M's 538 MB takes 0.9 s on one busy core; the result is kept in `base.json`, with every file's size and
    modification time (ns), and reused while those stay the same. Raises UnsupportedBase.
    """
    names = sorted([*_weight_files(path), *(file for file in SIDE_FILES if (path / file).is_file())])
    stamps = {file: [(path / file).stat().st_size, (path / file).stat().st_mtime_ns] for file in names}
    cache = _read_cache(path)
    if cache.get("stamps") == stamps and isinstance(cache.get("digest"), str):
        return cache["digest"]
    files = {file: file_digest(path / file) for file in names}
    found = digest(canonical_json({"files": files, "type": "base"}))
    _write_cache(path, {"digest": found, "name": name or cache.get("name") or path.resolve().name, "stamps": stamps})
    return found


def _weight_files(path: Path) -> list[str]:
    if (path / INDEX).is_file():
        index = _read_json(path / INDEX)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UnsupportedBase(f"{path / INDEX} has no weight_map")
        files = sorted(set(weight_map.values()))
        missing = [file for file in files if Path(file).name != file or not (path / file).is_file()]
        if missing:
            raise UnsupportedBase(f"{path / INDEX} names {missing[0]}, which is not there")
        return files
    files = sorted(file.name for file in path.glob("*.safetensors"))
    if not files:
        raise UnsupportedBase(f"{path} holds no *.safetensors")
    return files


def _module_shapes(path: Path) -> Iterator[tuple[str, ModuleShape]]:
    for file in _weight_files(path):
        try:
            tensors = read_header(path / file).tensors
        except BadSafetensors as error:
            raise UnsupportedBase(str(error)) from None
        for name, tensor in tensors.items():
            match = _LAYER_WEIGHT.fullmatch(name)
            if match and len(tensor.shape) == 2:
                yield match["module"], ModuleShape(*tensor.shape)


def _read_config(path: Path) -> dict[str, Any]:
    if not (path / "config.json").is_file():
        raise UnsupportedBase(f"{path} holds no config.json")
    config = _read_json(path / "config.json")
    text = config.get("text_config")  # multimodal models keep their language model's sizes there
    return {**config, **text} if isinstance(text, dict) else config


def _size(path: Path, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise UnsupportedBase(f"{path / 'config.json'} has no {key}")
    return value


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except ValueError as error:
        raise UnsupportedBase(f"{file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnsupportedBase(f"{file} is not a JSON object")
    return value


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        value = json.loads((path / CACHE).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_cache(path: Path, value: Mapping[str, object]) -> None:
    """A directory that may not be written to is hashed again at the next start: nothing else depends on the cache."""
    temporary = path / f".{CACHE}.{os.getpid()}"
    try:
        temporary.write_bytes(canonical_json(value) + b"\n")
        os.replace(temporary, path / CACHE)
    except OSError:
        temporary.unlink(missing_ok=True)
