"""Random packages: the registry's own validation takes them."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.base import BaseModel
from adapters.package import PackageLimits, inspect
from loadtest.packages import Base, Shape, archive, write_head, write_package

SHAPE = Shape(rank=4, layers=2, k=8)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk: three layers, grouped queries."""
    path = tmp_path_factory.mktemp("base")
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 32,
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    shapes = {"q": (16, 16), "k": (8, 16), "v": (8, 16), "o": (16, 16)}
    names = {f"self_attn.{name}_proj": shape for name, shape in shapes.items()}
    names |= {"mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24)}
    tensors = {
        f"model.layers.{layer}.{name}.weight": np.ones(shape, "f4")
        for layer in range(3)
        for name, shape in names.items()
    }
    save_file(tensors, path / "model.safetensors")
    BaseModel.from_directory(path, "tiny")
    return path


def test_a_package_with_head_passes_registration(directory: Path, tmp_path: Path) -> None:
    """Shapes, digests, taps and contributors are those the registry wants."""
    base = Base.read(directory)
    package = write_package(base, tmp_path / "package", SHAPE, seed=1)
    write_head(base, package, SHAPE, 1, ["bob", "ada"], "sha256:" + "a" * 64)
    found = inspect(package, BaseModel.from_directory(directory), PackageLimits())
    assert found.rank == 4
    assert found.contributors == ("ada", "bob")
    assert set(found.taps) == set(found.target_modules)
    assert len(found.target_modules) == 14


def test_packages_differ_by_seed_and_only_by_seed(directory: Path, tmp_path: Path) -> None:
    """The same seed makes the same bytes, so that on and off registrations hold the same weights."""
    base = Base.read(directory)
    made = [write_package(base, tmp_path / str(i), SHAPE, seed=seed) for i, seed in enumerate((1, 1, 2))]
    digests = [inspect(one, BaseModel.from_directory(directory), PackageLimits()).weights for one in made]
    assert digests[0] == digests[1] != digests[2]


def test_an_archive_holds_the_package_flat(directory: Path, tmp_path: Path) -> None:
    """Nothing but the files of a package, without folders."""
    package = write_package(Base.read(directory), tmp_path / "package", SHAPE, seed=1)
    (package / "README.md").write_text("left out")
    with tarfile.open(fileobj=BytesIO(archive(package))) as tar:
        assert tar.getnames() == ["adapter_config.json", "adapter_model.safetensors"]
