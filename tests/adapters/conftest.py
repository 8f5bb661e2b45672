"""Real files to test with: a tiny Llama-like base model, adapters for it, and heads for those."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.base import BaseModel
from adapters.canonical import canonical_json
from adapters.database import Database
from adapters.datanet import DatanetStore
from adapters.digests import digest
from adapters.registry import Registry

HIDDEN, INNER, LAYERS, RANK, K = 16, 24, 3, 4, 5
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}


def write_base(path: Path, layers: int = LAYERS, seed: int = 0) -> Path:
    """A base model directory with one safetensors file."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tensors = {"model.embed_tokens.weight": rng.normal(size=(32, HIDDEN)).astype("f4")}
    for layer in range(layers):
        for module, shape in SHAPES.items():
            tensors[f"model.layers.{layer}.{module}.weight"] = rng.normal(size=shape).astype("f4")
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = np.ones(HIDDEN, "f4")
    save_file(tensors, path / "model.safetensors")
    config = {"hidden_size": HIDDEN, "vocab_size": 32, "num_hidden_layers": layers, "model_type": "llama"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    return path


@dataclass
class PackageKit:
    """Writes a valid package; a test changes one thing of it and writes it again."""

    base: BaseModel
    directory: Path
    config: dict = field(default_factory=dict)
    tensors: dict = field(default_factory=dict)
    metadata: dict | None = None

    def __post_init__(self) -> None:
        self.config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": RANK,
            "lora_alpha": 8,
            "lora_dropout": 0.05,
            "target_modules": ["up_proj", "down_proj"],
            "bias": "none",
        }
        self.reseed(0)

    def reseed(self, seed: int) -> "PackageKit":
        rng = np.random.default_rng(seed)
        self.tensors = {}
        for module, shape in self.base.modules.items():
            if module.endswith(("up_proj", "down_proj")):
                name = f"base_model.model.{module}"
                self.tensors[f"{name}.lora_A.weight"] = rng.normal(size=(RANK, shape.in_features)).astype("f4")
                self.tensors[f"{name}.lora_B.weight"] = rng.normal(size=(shape.out_features, RANK)).astype("f4")
        return self

    def write(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "adapter_config.json").write_text(json.dumps(self.config))
        save_file(self.tensors, self.directory / "adapter_model.safetensors", self.metadata)
        return self.directory

    def weights_digest(self) -> str:
        content = (self.directory / "adapter_model.safetensors").read_bytes()
        return "sha256:" + hashlib.sha256(content).hexdigest()

    def write_record(self, datanet: str, version: str, tokens: dict[str, int], /, **changes: object) -> None:
        record = {
            "type": "training-record",
            "base": self.base.digest,
            "datanet": datanet,
            "datanet_version": version,
            "trainer": "tina",
            "host": "hugo",
            "weights": self.weights_digest(),
            "contributors": {name: {"tokens": count} for name, count in tokens.items()},
            "hyperparameters": {"learning_rate_ppm": 1000},
        }
        (self.directory / "training_record.json").write_bytes(canonical_json({**record, **changes}))

    def write_head(
        self, version: str, contributors: list[str], /, tensors: dict | None = None, **changes: str | None
    ) -> None:
        """`changes` replace metadata; None removes a key."""
        fidelity = canonical_json({"type": "fidelity", "fidelity_ppm": 250_000})
        (self.directory / "fidelity.json").write_bytes(fidelity)
        taps = [f"model.layers.{layer}.mlp.down_proj" for layer in (1, 2)]
        metadata = {
            "format": "openledger-head/1",
            "base": self.base.digest,
            "weights": self.weights_digest(),
            "taps": json.dumps(taps),
            "contributors": json.dumps(contributors),
            "method": "trace",
            "datanet_version": version,
            "fidelity": digest(fidelity),
            **changes,
        }
        rng = np.random.default_rng(7)
        shape = (len(contributors), len(taps), K, RANK)
        default = {"K": rng.normal(size=shape).astype("f4"), "P": rng.normal(size=(HIDDEN, K)).astype("f4")}
        save_file(
            {**default, **(tensors or {})},
            self.directory / "attribution_head.safetensors",
            {key: value for key, value in metadata.items() if value is not None},
        )


def tar_of(entries: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    """An uncompressed tar of whatever entries a test makes up."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return io.BytesIO(out.getvalue())


@pytest.fixture
def make_tar():
    return tar_of


@pytest.fixture
def make_base():
    return write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> BaseModel:
    return BaseModel.from_directory(write_base(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture
def kit(base, tmp_path) -> PackageKit:
    return PackageKit(base, tmp_path / "package")


@pytest.fixture
def database(tmp_path):
    ticks = iter(range(1_700_000_000_000, 1_800_000_000_000))
    opened = Database(tmp_path / "registry.db", clock=lambda: next(ticks))
    yield opened
    opened.close()


@pytest.fixture
def store(database) -> DatanetStore:
    return DatanetStore(database)


@pytest.fixture
def registry(database, tmp_path, base) -> Registry:
    registry = Registry(database, tmp_path / "adapters", base)
    registry.claim("pia", acting="pia")
    return registry


@pytest.fixture
def facts(store) -> str:
    """A Datanet of olga's, with an example each of ann and bob; returns its version."""
    store.create("facts", owner="olga", licence="CC0-1.0", title="Facts")
    store.contribute("facts", b'{"text": "Ann writes."}\n{"text": "Ann reads."}\n', acting="ann")
    store.contribute("facts", b'{"prompt": "Who?", "completion": "Bob."}\n', acting="bob")
    return store.version("facts", acting="olga").value()["version"]
