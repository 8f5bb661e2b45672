"""A package is what PEFT wrote for the served base model, or it is refused by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adapters.base import BaseModel
from adapters.canonical import canonical_json
from adapters.digests import digest, file_digest
from adapters.errors import (
    AdaptersError,
    BadAdapterConfig,
    BadFidelity,
    BadHead,
    BadSafetensors,
    BadTrainingRecord,
    FileMissing,
    FileNotAllowed,
    HeadMismatch,
    NotFinite,
    PackageTooLarge,
    PickleFile,
    RankTooHigh,
    TensorMissing,
    UnknownTargetModule,
    UnsafePath,
    UnsupportedOption,
    WrongBase,
    WrongDtype,
    WrongShape,
    WrongTensorName,
    ZeroDelta,
)
from adapters.package import PackageLimits, inspect, manifest_bytes

VERSION = "sha256:" + "5" * 64
A0 = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
B0 = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
LIMITS = PackageLimits()


def refuses(kit, error: type[AdaptersError], match: str = "", limits: PackageLimits = LIMITS) -> AdaptersError:
    with pytest.raises(AdaptersError, match=match) as refusal:
        inspect(kit.directory, kit.base, limits)
    assert type(refusal.value) is error, repr(refusal.value)
    assert refusal.value.code
    return refusal.value


def test_a_plain_peft_package(kit):
    """A PEFT LoRA without our files is a package with method `declared`."""
    package = inspect(kit.write(), kit.base, LIMITS)
    assert (package.rank, package.method, package.head, package.fidelity_ppm) == (4, "declared", None, 0)
    assert package.base == kit.base.digest
    assert package.target_modules == tuple(sorted(m for m in kit.base.modules if "q_proj" not in m))
    assert (package.datanet, package.trainer, package.tokens) == (None, None, {})


def test_the_manifest_names_every_file(kit):
    """The adapter digest is that of the manifest, which names base and files by digest; any file changes it."""
    directory = kit.write()
    package = inspect(directory, kit.base, LIMITS)
    assert json.loads(package.manifest) == {
        "type": "adapter",
        "base": kit.base.digest,
        "files": {
            name: {"digest": file_digest(directory / name), "size": (directory / name).stat().st_size}
            for name in ("adapter_config.json", "adapter_model.safetensors")
        },
    }
    assert package.digest == digest(package.manifest) == digest(manifest_bytes(directory, kit.base.digest))
    kit.write_record("facts", VERSION, {"ann": 1})
    assert inspect(directory, kit.base, LIMITS).digest != package.digest


def test_a_full_package(kit):
    """Record, head and fidelity report are read into the package."""
    kit.write()
    kit.write_record("facts", VERSION, {"bob": 20, "ann": 10})
    kit.write_head(VERSION, ["ann", "bob"])
    package = inspect(kit.directory, kit.base, LIMITS)
    assert (package.datanet, package.datanet_version) == ("facts", VERSION)
    assert (package.trainer, package.host, package.tokens) == ("tina", "hugo", {"ann": 10, "bob": 20})
    assert (package.method, package.contributors, package.fidelity_ppm) == ("trace", ("ann", "bob"), 250_000)
    assert package.taps == ("model.layers.1.mlp.down_proj", "model.layers.2.mlp.down_proj")
    assert package.head == file_digest(kit.directory / "attribution_head.safetensors")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("adapter_model.bin", PickleFile),
        ("scheduler.pt", PickleFile),
        ("README.md", FileNotAllowed),
    ],
)
def test_other_files(kit, name, error):
    """A pickle, or any file outside the layout, is refused."""
    (kit.write() / name).write_bytes(b"")
    refuses(kit, error, name)


def test_links_and_missing_files(kit, tmp_path):
    """Links are refused even when they lead to a good file; config and weights must be there."""
    directory = kit.write()
    (directory / "adapter_config.json").rename(tmp_path / "config")
    refuses(kit, FileMissing, r"adapter_config\.json")
    (directory / "adapter_config.json").symlink_to(tmp_path / "config")
    refuses(kit, UnsafePath, "is a link")


def test_sizes(kit):
    """The package, and each JSON file, are bounded in bytes."""
    kit.write()
    refuses(kit, PackageTooLarge, limits=PackageLimits(package_bytes=1000))
    refuses(kit, PackageTooLarge, limits=PackageLimits(json_bytes=10))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"r": 65}, RankTooHigh, "rank 65 is over the limit of 64"),
        ({"rank_pattern": {"up_proj": 65}}, RankTooHigh, "rank 65"),
        ({"r": 0}, BadAdapterConfig, "r must be"),
        ({"r": "4"}, BadAdapterConfig, "r must be"),
        ({"r": True}, BadAdapterConfig, "r must be"),
        ({"rank_pattern": [1]}, BadAdapterConfig, "rank_pattern"),
        ({"rank_pattern": {"(.*)*x": 4}}, UnsupportedOption, "regular expression"),
        ({"lora_alpha": None}, BadAdapterConfig, "lora_alpha"),
        ({"lora_alpha": -1}, BadAdapterConfig, "lora_alpha"),
        ({"alpha_pattern": {"up_proj": 0}}, BadAdapterConfig, "up_proj"),
        ({"use_rslora": "yes"}, BadAdapterConfig, "use_rslora"),
        ({"target_modules": None}, BadAdapterConfig, "target_modules"),
        ({"target_modules": []}, BadAdapterConfig, "target_modules"),
        ({"target_modules": [1]}, BadAdapterConfig, "target_modules"),
        ({"layers_to_transform": "1"}, BadAdapterConfig, "layers_to_transform"),
        ({"peft_type": "IA3"}, UnsupportedOption, "IA3"),
        ({"task_type": "SEQ_CLS"}, UnsupportedOption, "SEQ_CLS"),
        ({"bias": "all"}, UnsupportedOption, "bias"),
        ({"use_dora": True}, UnsupportedOption, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedOption, "modules_to_save"),
        ({"lora_bias": True}, UnsupportedOption, "lora_bias"),
        ({"fan_in_fan_out": True}, UnsupportedOption, "fan_in_fan_out"),
        ({"layer_replication": [[0, 2], [1, 3]]}, UnsupportedOption, "layer_replication"),
        ({"trainable_token_indices": [1]}, UnsupportedOption, "trainable_token_indices"),
        ({"alora_invocation_tokens": [1]}, UnsupportedOption, "alora_invocation_tokens"),
        ({"target_parameters": ["w"]}, UnsupportedOption, "target_parameters"),
        ({"init_lora_weights": "pissa_niter_4"}, UnsupportedOption, "init_lora_weights"),
        ({"init_lora_weights": "loftq"}, UnsupportedOption, "init_lora_weights"),
        ({"an_option_of_next_year": 1}, UnsupportedOption, "an_option_of_next_year"),
    ],
)
def test_refused_configs(kit, change, error, message):
    """An option that would change the answer and is not served is refused by name, never ignored."""
    kit.config |= change
    kit.write()
    refusal = refuses(kit, error, message)
    if isinstance(refusal, UnsupportedOption):
        assert refusal.option in change


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": False, "modules_to_save": None, "layer_replication": None, "an_option_of_next_year": None},
        {"use_rslora": True, "lora_alpha": 16.0, "init_lora_weights": "gaussian", "lora_dropout": 0.1},
        {"target_modules": r".*\.(up|down)_proj"},
        {"target_modules": ["mlp.up_proj", "mlp.down_proj"]},
        {"target_modules": ["up_proj", "down_proj", "q_proj"], "exclude_modules": ["q_proj"]},
        {"target_modules": "all-linear", "exclude_modules": ".*q_proj"},
        {"r": 2, "rank_pattern": {"up_proj": 4, "down_proj": 4}},
        {"loftq_config": {}, "base_model_name_or_path": "/home/me/model", "peft_version": "0.21.2"},
    ],
)
def test_accepted_configs(kit, change):
    """Options that are off, or that the engine serves, are accepted."""
    kit.config |= change
    assert inspect(kit.write(), kit.base, LIMITS).rank == 4


def test_some_layers_only(kit):
    """With layers_to_transform the other layers must have no tensors, and need none."""
    kit.config["layers_to_transform"] = [1, 2]
    kit.write()
    refuses(kit, UnknownTargetModule, r"does not target model\.layers\.0")
    kit.tensors = {name: value for name, value in kit.tensors.items() if ".layers.0." not in name}
    assert len(inspect(kit.write(), kit.base, LIMITS).target_modules) == 4


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"r": NaN}', b'{"r":1,"r":2}', b"\xff", b"[" * 100_000])
def test_a_config_that_is_none(kit, content):
    """What is no JSON object is refused as such."""
    (kit.write() / "adapter_config.json").write_bytes(content)
    refuses(kit, BadAdapterConfig)


def test_truncated_weights(kit):
    """Weights cut anywhere are refused."""
    path = kit.write() / "adapter_model.safetensors"
    content = path.read_bytes()
    for size in (0, 7, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        refuses(kit, BadSafetensors)


def _rename(tensors: dict, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (
            lambda t: [_rename(t, name, name.removeprefix("base_model.")) for name in list(t)],
            WrongTensorName,
            "model.mod",
        ),
        (
            lambda t: [_rename(t, name, "base_model.model." + name) for name in list(t)],
            UnknownTargetModule,
            "no linear layer",
        ),
        (lambda t: _rename(t, A0, A0.replace("lora_A", "lora_A.default")), WrongTensorName, "default"),
        (lambda t: _rename(t, A0, A0.replace("lora_A", "lora_embedding_A")), WrongTensorName, "embedding"),
        (lambda t: t.update({"x" * 3000: t[A0]}), WrongTensorName, "xxx"),
        (lambda t: _rename(t, A0, A0.replace(".0.", ".9.")), UnknownTargetModule, r"layers\.9"),
        (lambda t: t.update({A0.replace("mlp.up", "self_attn.q"): t[A0]}), UnknownTargetModule, "does not target"),
        (lambda t: t.pop(A0), TensorMissing, "lacks lora_A"),
        (lambda t: [t.pop(A0), t.pop(B0)], TensorMissing, r"targets model\.layers\.0\.mlp\.up_proj"),
        (lambda t: t.clear(), TensorMissing, ""),
        (lambda t: t.update({A0: t[A0][:3]}), WrongShape, "lora_A has rank 3"),
        (lambda t: t.update({B0: t[B0].T}), WrongBase, "features"),
        (lambda t: t.update({A0: t[A0][:, :8]}), WrongBase, "layer of 8 to 24 features"),
        (lambda t: t.update({A0: t[A0].reshape(-1)}), WrongShape, "two dimensions"),
        (lambda t: t.update({A0: t[A0].astype("f8")}), WrongDtype, "F64"),
        (lambda t: t.update({A0: t[A0].astype("i4")}), WrongDtype, "I32"),
        (lambda t: t.update({A0: t[A0] * np.float32("nan")}), NotFinite, A0),
        (lambda t: t.update({B0: (t[B0] * 1e9).astype("f2")}), NotFinite, B0),
        (lambda t: [t.update({name: t[name] * 0}) for name in t if "lora_B" in name], ZeroDelta, ""),
        (
            lambda t: [t.update({name: t[name] * -0.0}) for name in t if ("lora_A" in name) == (".0." in name)],
            ZeroDelta,
            "",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_refused_weights(kit, edit, error, message):
    """Wrong names, modules, shapes, dtypes, values and a zero delta are each refused by name."""
    edit(kit.tensors)
    kit.write()
    refuses(kit, error, message)


def test_one_live_module_is_enough(kit):
    """An adapter that changes only some of its modules is served."""
    for name in kit.tensors:
        if "lora_B" in name and ".2." not in name:
            kit.tensors[name] *= 0
    inspect(kit.write(), kit.base, LIMITS)


def test_half_precision(kit):
    """F16 adapters are served."""
    kit.tensors = {name: value.astype("f2") for name, value in kit.tensors.items()}
    inspect(kit.write(), kit.base, LIMITS)


def test_another_base(kit, make_base, tmp_path):
    """The base digest in metadata or training record must be the served one, also where the shapes fit."""
    kit.metadata = {"base": "sha256:" + "0" * 64, "format": "pt"}
    kit.write()
    refuses(kit, WrongBase, "was trained on the base model sha256:0000")
    kit.metadata = {"base": kit.base.digest}
    kit.write()
    kit.write_record("facts", VERSION, {"ann": 1}, base="sha256:" + "0" * 64)
    refuses(kit, WrongBase, "training record names the base model")
    (kit.directory / "training_record.json").unlink()
    inspect(kit.directory, kit.base, LIMITS)
    kit.metadata = None
    kit.write()
    small = BaseModel.from_directory(make_base(tmp_path / "small", layers=2, seed=1))
    with pytest.raises(UnknownTargetModule):
        inspect(kit.directory, small, LIMITS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "sha256:" + "0" * 64}, "is of adapter weights"),
        ({"type": "record"}, "type"),
        ({"datanet_version": "5"}, "datanet_version"),
        ({"datanet": "No Name"}, "datanet"),
        ({"trainer": 5}, "trainer"),
        ({"contributors": {}}, "contributors"),
        ({"contributors": {"ann": {"tokens": -1}}}, "tokens of ann"),
        ({"contributors": {"ann": 5}}, "tokens of ann"),
        ({"contributors": {"Ann": {"tokens": 1}}}, "contributor"),
    ],
)
def test_refused_records(kit, change, message):
    """A training record of other weights, or lacking what settlement reads, is refused."""
    kit.write()
    kit.write_record("facts", VERSION, {"ann": 1}, **change)
    refuses(kit, BadTrainingRecord, message)


def test_a_record_that_is_not_canonical(kit):
    """A training record's digest goes to the log: only canonical bytes are taken."""
    kit.write()
    kit.write_record("facts", VERSION, {"ann": 1})
    path = kit.directory / "training_record.json"
    path.write_bytes(json.dumps(json.loads(path.read_bytes()), indent=1).encode())
    refuses(kit, BadTrainingRecord, "canonical")


OTHER = "sha256:" + "0" * 64
ROWS = np.ones((2, 2, 5, 4), "f4")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": "openledger-head/2"}, BadHead, "format"),
        ({"format": None}, BadHead, "format"),
        ({"base": OTHER}, HeadMismatch, "fitted on the base model"),
        ({"base": None}, BadHead, "base"),
        ({"weights": OTHER}, HeadMismatch, "fitted to adapter weights"),
        ({"fidelity": OTHER}, HeadMismatch, "fidelity"),
        ({"fidelity": None}, BadHead, "fidelity"),
        ({"datanet_version": OTHER}, HeadMismatch, "another Datanet version"),
        ({"method": "declared"}, BadHead, "method"),
        ({"contributors": "ann"}, BadHead, "contributors are not a JSON list"),
        ({"contributors": "[" * 100_000}, BadHead, "contributors are not a JSON list"),
        ({"contributors": "[]"}, BadHead, "at least one"),
        ({"contributors": '["bob","ann"]'}, BadHead, "not sorted"),
        ({"contributors": '["ann","ann"]'}, BadHead, "repeat"),
        ({"contributors": '["Ann","bob"]'}, BadHead, "Ann"),
        ({"contributors": '["ann","bob","cat"]'}, BadHead, "K has shape"),
        ({"taps": '["model.layers.1.mlp.down_proj"]'}, BadHead, "K has shape"),
        ({"taps": '["model.layers.1.mlp.up_proj","model.layers.1.self_attn.q_proj"]'}, HeadMismatch, "q_proj"),
        ({"taps": '["a","a"]'}, BadHead, "repeat"),
        ({"tensors": {"K": ROWS.astype("f2")}}, BadHead, "F32"),
        ({"tensors": {"R": ROWS}}, BadHead, "no others"),
        ({"tensors": {"Q": ROWS}}, BadHead, "K has shape"),
        ({"tensors": {"Q": np.ones((3, 2), "f4")}}, BadHead, "Q has shape"),
        ({"tensors": {"H": np.ones((2, 4, 7), "f4")}}, BadHead, "K has shape"),
        ({"tensors": {"H": np.ones((2, 3, 7), "f4"), "K": np.ones((2, 1, 5, 7), "f4")}}, BadHead, "H has shape"),
        ({"tensors": {"H": np.ones((2, 4, 0), "f4"), "K": np.ones((2, 1, 5, 0), "f4")}}, BadHead, "shape"),
        ({"tensors": {"H": np.full((2, 4, 7), np.inf, "f4"), "K": np.ones((2, 1, 5, 7), "f4")}}, NotFinite, "H"),
        ({"tensors": {"K": ROWS[..., :3]}}, BadHead, "K has shape"),
        ({"tensors": {"P": np.ones((15, 5), "f4")}}, BadHead, "P has shape"),
        ({"tensors": {"P": np.ones((16, 0), "f4"), "K": ROWS[:, :, :0]}}, BadHead, "shape"),
        ({"tensors": {"P": np.ones(16, "f4")}}, BadHead, "shape"),
        ({"tensors": {"P": np.zeros((16, 5), "f4")}}, BadHead, "zero"),
        ({"tensors": {"K": ROWS / np.float32(0)}}, NotFinite, "K"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_refused_heads(kit, changes, error, message):
    """A malformed head, and one built for another adapter, base, version or report, are refused by name."""
    kit.write()
    kit.write_record("facts", VERSION, {"ann": 1, "bob": 1})
    kit.write_head(VERSION, ["ann", "bob"], **changes)
    refuses(kit, error, message)


def test_a_head_of_the_same_shape_for_other_weights(kit):
    """A head stays with the weights it was fitted to: retrained weights of the same shapes refuse it."""
    kit.write()
    kit.write_head(VERSION, ["ann", "bob"])
    inspect(kit.directory, kit.base, LIMITS)
    kit.reseed(1).write()
    refuses(kit, HeadMismatch, "fitted to adapter weights")


def test_taps_of_one_rank(kit):
    """A head cannot tap modules of different ranks."""
    kit.config["rank_pattern"] = {"layers.1.mlp.down_proj": 2}
    kit.tensors = {
        name: (value[:2] if "lora_A" in name else value[:, :2]) if ".1.mlp.down" in name else value
        for name, value in kit.tensors.items()
    }
    kit.tensors = {name: np.ascontiguousarray(value) for name, value in kit.tensors.items()}
    kit.write()
    kit.write_head(VERSION, ["ann", "bob"])
    refuses(kit, BadHead, "different ranks")


@pytest.mark.parametrize("value", [{}, {"fidelity_ppm": 1_000_001}, {"fidelity_ppm": -1}, {"fidelity_ppm": True}, []])
def test_refused_reports(kit, value):
    """A fidelity report says its fidelity in ppm."""
    kit.write()
    kit.write_head(VERSION, ["ann", "bob"], fidelity=digest(canonical_json(value)))
    (kit.directory / "fidelity.json").write_bytes(canonical_json(value))
    refuses(kit, BadFidelity)


def test_head_and_report_belong_together(kit):
    """A head without its report, and a report without head, are refused."""
    kit.write()
    kit.write_head(VERSION, ["ann", "bob"])
    head = kit.directory / "attribution_head.safetensors"
    content = head.read_bytes()
    head.unlink()
    refuses(kit, BadFidelity, "holds no attribution_head")
    head.write_bytes(content)
    (kit.directory / "fidelity.json").unlink()
    refuses(kit, FileMissing, r"fidelity\.json")


def test_vectors(tmp_path):
    """The manifest and the adapter digest of the package in the vectors are the published ones."""
    vector = json.loads((Path(__file__).parent.parent / "vectors/package.json").read_text())
    for name, content in vector["files"].items():
        (tmp_path / name).write_bytes(bytes.fromhex(content))
    assert manifest_bytes(tmp_path, vector["base"]).decode() == vector["manifest"]
    assert digest(vector["manifest"].encode()) == vector["digest"]


def test_no_torch_no_pickle():
    """The torch-free part imports neither torch nor pickle nor the training part."""
    code = "import sys, adapters.registry, adapters.export; print(*sorted(sys.modules))"
    root = Path(__file__).parents[2]
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    loaded = {name.split(".")[0] for name in names.split()}
    assert not loaded & {"torch", "transformers", "kernels", "metering", "gateway"}
    assert "adapters.training" not in names
