"""A base model is described by its files' headers and named by its files' bytes."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.base import BaseModel, ModuleShape, base_digest
from adapters.canonical import canonical_json
from adapters.digests import digest, file_digest
from adapters.errors import UnsupportedBase


@pytest.fixture
def directory(make_base, tmp_path):
    return make_base(tmp_path / "tiny")


def test_shapes_and_sizes(directory):
    """The linear layers under `layers.<n>` are modules; embeddings and norms are none."""
    base = BaseModel.from_directory(directory)
    assert (base.name, base.hidden_size, base.vocab_size, base.layers) == ("tiny", 16, 32, 3)
    assert len(base.modules) == 9
    assert base.modules["model.layers.2.mlp.down_proj"] == ModuleShape(out_features=16, in_features=24)


def test_digest_is_specified(directory):
    """The digest is that of the canonical list of the files' digests."""
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    files = {name: file_digest(directory / name) for name in names}
    assert base_digest(directory) == digest(canonical_json({"files": files, "type": "base"}))
    (directory / "README.md").write_text("not part of the model")
    assert base_digest(directory) == digest(canonical_json({"files": files, "type": "base"}))


def test_any_file_decides(directory):
    """Another weight, another tokenizer file: another digest, whatever base.json said before."""
    digests = {base_digest(directory)}
    (directory / "tokenizer.json").write_text("{ }")
    digests.add(base_digest(directory))
    (directory / "special_tokens_map.json").write_text("{}")
    digests.add(base_digest(directory))
    tensors = load_file(directory / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] + np.float32(1)
    save_file(tensors, directory / "model.safetensors")
    digests.add(base_digest(directory))
    assert len(digests) == 4


def test_the_cache_is_used_while_files_stay(directory, monkeypatch):
    """A second description hashes nothing, and keeps the name that base.json carries."""
    first = BaseModel.from_directory(directory, name="given")
    monkeypatch.setattr("adapters.base.file_digest", lambda path: pytest.fail(f"hashed {path}"))
    assert BaseModel.from_directory(directory) == first
    assert first.name == "given"


def test_a_cache_of_another_kind_is_no_cache(directory):
    """A base.json of another writer, with name and digest only, gives its name; the digest is computed."""
    right = base_digest(directory)
    for content in (json.dumps({"name": "demo", "digest": digest(b"wrong")}), "[]", "{"):
        (directory / "base.json").write_text(content)
        base = BaseModel.from_directory(directory)
        assert base.digest == right
        assert base.name == ("demo" if "demo" in content else "tiny")
        (directory / "base.json").unlink()


def test_sharded(directory, make_base, tmp_path):
    """Shards named by an index are described as one file is; a shard that is not there is refused."""
    sharded = make_base(tmp_path / "sharded")
    tensors = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, sharded / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file({"model.layers.0.mlp.up_proj.weight": np.ones((1, 1), "f4")}, sharded / "stray.safetensors")
    assert BaseModel.from_directory(sharded).modules == BaseModel.from_directory(directory).modules
    os.remove(sharded / "model-00002-of-00002.safetensors")
    with pytest.raises(UnsupportedBase, match="which is not there"):
        BaseModel.from_directory(sharded)


@pytest.mark.parametrize("broken", ["config", "size", "weights", "header", "layers", "json"])
def test_refused_bases(directory, broken):
    """A directory that cannot be described is refused with the file's name."""
    config = json.loads((directory / "config.json").read_text())
    match broken:
        case "config":
            (directory / "config.json").unlink()
        case "json":
            (directory / "config.json").write_text("{")
        case "size":
            (directory / "config.json").write_text(json.dumps({**config, "hidden_size": None}))
        case "weights":
            (directory / "model.safetensors").unlink()
        case "header":
            (directory / "model.safetensors").write_bytes(b"\xff" * 100)
        case "layers":
            save_file({"lm_head.weight": np.ones((2, 2), "f4")}, directory / "model.safetensors")
    with pytest.raises(UnsupportedBase):
        BaseModel.from_directory(directory)


def test_a_read_only_directory(directory, monkeypatch):
    """Where the cache cannot be written the digest is the same."""

    def refuse(*_: object) -> None:
        raise PermissionError

    right = base_digest(directory)
    (directory / "base.json").unlink()
    monkeypatch.setattr("adapters.base.os.replace", refuse)
    assert base_digest(directory) == right
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
