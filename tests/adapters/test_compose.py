"""Composing packages: one package whose digest says what it is the sum of, or a refusal by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from adapters.base import BaseModel
from adapters.canonical import canonical_json, parse_canonical
from adapters.compose import compose
from adapters.composition import parse_composition
from adapters.digests import file_digest
from adapters.errors import (
    AdapterNotFound,
    AdapterRevoked,
    AdaptersError,
    BadComposition,
    CompositionMismatch,
    HeadMismatch,
    InvalidDeclared,
    RankTooHigh,
    WrongBase,
)
from adapters.package import PackageLimits, inspect
from adapters.tensors import read_header
from tests.adapters.conftest import HIDDEN, RANK, K, PackageKit

HALVES = (700_000, 300_000)
P = np.random.default_rng(3).normal(size=(HIDDEN, K)).astype("f4")


@pytest.fixture
def parts(kit, base, tmp_path, facts) -> tuple[Path, Path]:
    """Two packages of the Datanet `facts`, with heads; the second adapts down projections only."""
    first, second = kit, PackageKit(base, tmp_path / "second").reseed(1)
    second.config |= {"target_modules": ["down_proj"], "lora_alpha": 12}
    second.tensors = {name: tensor for name, tensor in second.tensors.items() if "down_proj" in name}
    for one, contributors in ((first, ["ann"]), (second, ["ann", "bob"])):
        one.write()
        one.write_record("facts", facts, dict.fromkeys(contributors, 10))
        one.write_head(facts, contributors, {"P": P})
    return first.directory, second.directory


def delta(directory: Path, module: str) -> np.ndarray:
    """(alpha / r) B A of a module, fp64; 0 where it is not adapted."""
    config, file = (
        json.loads((directory / "adapter_config.json").read_text()),
        read_header(directory / "adapter_model.safetensors"),
    )
    names = [f"base_model.model.{module}.lora_{side}.weight" for side in "AB"]
    if names[0] not in file.tensors:
        return np.zeros(())
    a, b = (file.read(name).astype("f8") for name in names)
    return config["lora_alpha"] / config["r"] * b @ a


def test_the_composed_delta_is_the_weighted_sum_of_the_parts(parts, base, tmp_path):
    """Every module's (alpha / r) B A is 0.7 of the first and 0.3 of the second; 0 of a part that leaves it alone."""
    package = compose(list(zip(parts, HALVES, strict=True)), base, tmp_path / "sum")
    assert package.rank == 2 * RANK
    for module in package.target_modules:
        expected = 0.7 * delta(parts[0], module) + 0.3 * delta(parts[1], module)
        np.testing.assert_allclose(delta(package.directory, module), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_parts_are_read_exactly(parts, base, kit, tmp_path):
    """A part in F16 composes to the same delta as its numbers in F32."""
    kit.tensors = {name: tensor.astype("f2") for name, tensor in kit.tensors.items()}
    for name in ("attribution_head.safetensors", "fidelity.json", "training_record.json"):
        (kit.directory / name).unlink()
    kit.write()
    package = compose([(kit.directory, 500_000), (parts[1], 500_000)], base, tmp_path / "sum")
    module = "model.layers.1.mlp.up_proj"
    np.testing.assert_allclose(delta(package.directory, module), 0.5 * delta(kit.directory, module), rtol=1e-5)
    assert (package.head, package.method) == (None, "declared")  # one part has no head: nobody can be scored


def test_its_head_holds_the_scaled_heads_of_the_parts(parts, base, tmp_path):
    """Contributors are united, a shared P is kept once, K is [0.7 K_1, 0.3 K_2] along the rank, and f is 0."""
    package = compose(list(zip(parts, HALVES, strict=True)), base, tmp_path / "sum")
    whole = read_header(package.directory / "attribution_head.safetensors")
    blocks = dict(package.composition.parts)
    tensor, offset = whole.read("K"), 0
    for adapter in blocks:
        (path,) = [path for path in parts if inspect(path, base, PackageLimits()).digest == adapter]
        own = read_header(path / "attribution_head.safetensors")
        rows = [package.contributors.index(name) for name in inspect(path, base, PackageLimits()).contributors]
        np.testing.assert_allclose(
            tensor[rows][..., offset : offset + RANK], blocks[adapter] / 1e6 * own.read("K"), rtol=1e-6
        )
        np.testing.assert_array_equal(whole.read("P"), own.read("P"))
        offset += RANK
    assert np.count_nonzero(tensor[package.contributors.index("bob")]) == np.count_nonzero(tensor) / 3
    assert (package.contributors, package.fidelity_ppm) == (("ann", "bob"), 0)
    report = parse_canonical((package.directory / "fidelity.json").read_bytes())
    assert [part["fidelity_ppm"] for part in report["composed_of"]] == [250_000, 250_000]


FORMS = {  # of a head for two contributors: at will tap directions and factors
    "plain": {"K": (2, 2, K, RANK)},
    "directions": {"K": (2, 1, K, 7), "H": (2, RANK, 7)},
    "factors": {"K": (3, 2, K, RANK), "Q": (2, 3)},
    "both": {"K": (3, 1, K, 7), "H": (2, RANK, 7), "Q": (2, 3)},
}


def score(head, u: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Q sum_l (P^T u)^T K_l (H^T h)_l of one token, fp64; u [D], h [taps, r]."""
    tensors = {name: head.read(name).astype("f8") for name in head.tensors}
    if "H" in tensors:
        h = np.einsum("mr,mrd->d", h, tensors["H"])[None]
    scores = np.einsum("k,cmkr,mr->c", u @ tensors["P"], tensors["K"], h)
    return tensors["Q"] @ scores if "Q" in tensors else scores


@pytest.mark.parametrize("forms", [("plain", "directions"), ("factors", "plain"), ("both", "directions")])
def test_heads_of_different_forms_compose(parts, base, tmp_path, facts, forms):
    """Whatever form the parts' heads have, the composed head's scores are 0.7 and 0.3 of theirs."""
    draw = np.random.default_rng(5)
    for path, form in zip(parts, forms, strict=True):
        one = PackageKit(base, path)
        tensors = {name: draw.normal(size=shape).astype("f4") for name, shape in FORMS[form].items()}
        one.write_record("facts", facts, {"ann": 10, "bob": 10})
        one.write_head(facts, ["ann", "bob"], tensors)
    package = compose(list(zip(parts, HALVES, strict=True)), base, tmp_path / "sum")
    whole = read_header(package.directory / "attribution_head.safetensors")
    u, h = draw.normal(size=HIDDEN), draw.normal(size=(2, 2 * RANK))
    expected, offset = np.zeros(2), 0
    for adapter, weight in package.composition.parts.items():
        (path,) = [path for path in parts if inspect(path, base, PackageLimits()).digest == adapter]
        own = read_header(path / "attribution_head.safetensors")
        expected += weight / 1e6 * score(own, u, h[:, offset : offset + RANK])
        offset += RANK
    np.testing.assert_allclose(score(whole, u, h), expected, rtol=1e-5)


def test_the_order_of_the_parts_does_not_matter(parts, base, tmp_path):
    """The same parts and weights are the same adapter."""
    forth = compose([(parts[0], 700_000), (parts[1], 300_000)], base, tmp_path / "forth")
    back = compose([(parts[1], 300_000), (parts[0], 700_000)], base, tmp_path / "back")
    assert forth.digest == back.digest


def test_what_cannot_be_composed_is_refused_and_leaves_nothing(parts, base, make_base, tmp_path):
    """One part, the same part twice, weights of nothing, another base model, a rank over the limit."""
    other = BaseModel.from_directory(make_base(tmp_path / "other", seed=5))
    cases: list[tuple[type[AdaptersError], list[tuple[Path, int]], BaseModel, PackageLimits]] = [
        (BadComposition, [(parts[0], 1)], base, PackageLimits()),
        (BadComposition, [(parts[0], 1), (parts[0], 1)], base, PackageLimits()),
        (BadComposition, [(parts[0], 1), (parts[1], 0)], base, PackageLimits()),
        (BadComposition, [(parts[0], 1), (parts[1], 100_000_001)], base, PackageLimits()),
        (RankTooHigh, [(parts[0], 1), (parts[1], 1)], base, PackageLimits(max_rank=7)),
    ]
    for error, chosen, over, limits in cases:
        with pytest.raises(error):
            compose(chosen, over, tmp_path / "sum", limits)
    with pytest.raises((WrongBase, HeadMismatch)):
        compose([(parts[0], 1), (parts[1], 1)], other, tmp_path / "sum")
    assert not [path for path in tmp_path.iterdir() if "sum" in path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"type": "sum"},
        {"parts": []},
        {"parts": [{"adapter": "sha256:" + "1" * 64, "weight_ppm": 1}]},
        {"parts": [{"adapter": "sha256:" + d * 64, "weight_ppm": 1} for d in "21"]},
        {"parts": [{"adapter": "sha256:" + d * 64, "weight_ppm": 1.5} for d in "12"]},
        {"extra": 1},
    ],
)
def test_malformed_compositions_are_refused(change):
    """Other members, too few parts, parts out of order or weights that are no integers: BadComposition."""
    good = {
        "base": "sha256:" + "b" * 64,
        "parts": [{"adapter": "sha256:" + d * 64, "weight_ppm": 1} for d in "12"],
        "type": "composition",
        "weights": "sha256:" + "c" * 64,
    }
    assert parse_composition(canonical_json(good)).encode() == canonical_json(good)
    with pytest.raises(BadComposition):
        parse_composition(json.dumps(good | change, sort_keys=True, separators=(",", ":")).encode())


def test_a_composed_adapter_is_registered_with_the_weights_of_its_parts(registry, parts, base, tmp_path):
    """Its declared weights are 0.7 and 0.3 of the parts'; it names its parts, and its composition is a document."""
    for name, path in zip("ab", parts, strict=True):
        registry.register(f"pia/{name}", path, acting="pia")
    package = compose(list(zip(parts, HALVES, strict=True)), base, tmp_path / "sum")
    registration = registry.register("pia/sum", package.directory, acting="pia")
    adapter = registration.adapter
    assert adapter.declared == {"ann": 700_000 * 10**6 + 300_000 * 10**6 // 2, "bob": 300_000 * 10**6 // 2}
    assert sorted(adapter.composed_of.values()) == [300_000, 700_000]
    assert (adapter.datanet, adapter.trainer, adapter.contributors) == (None, None, ("ann", "bob"))
    assert "composition" in [document.kind for document in registration.documents]
    with pytest.raises(InvalidDeclared):
        registry.register("pia/mine", package.directory, acting="pia", declared={"pia": 1})


def test_a_composition_that_lies_about_its_parts_is_refused(registry, parts, base, tmp_path):
    """Unknown parts, revoked ones, and weights that do not come out of the named parts."""
    package = compose(list(zip(parts, HALVES, strict=True)), base, tmp_path / "sum")
    registry.register("pia/a", parts[0], acting="pia")
    with pytest.raises(AdapterNotFound):
        registry.register("pia/sum", package.directory, acting="pia")
    second = registry.register("pia/b", parts[1], acting="pia").adapter
    path = package.directory / "composition.json"
    value = parse_canonical(path.read_bytes())
    for part in value["parts"]:
        part["weight_ppm"] = 500_000
    for name in ("attribution_head.safetensors", "fidelity.json"):
        (package.directory / name).unlink()
    path.write_bytes(canonical_json(value | {"weights": file_digest(package.directory / "adapter_model.safetensors")}))
    with pytest.raises(CompositionMismatch):
        registry.register("pia/sum", package.directory, acting="pia")
    registry.revoke(second.digest, acting="pia")
    with pytest.raises(AdapterRevoked):
        registry.register("pia/sum", package.directory, acting="pia")
