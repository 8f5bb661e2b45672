"""Audits of composed adapters: the traces of the parts, in the places of their ranks, weighted as their heads are."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters.base import BaseModel
from adapters.compose import compose
from adapters.demo.export import write_export
from adapters.digests import digest, hex_of
from adapters.package import manifest_bytes
from adapters.training.audit import AuditModel, reported_scorers
from adapters.training.config import HeadConfig
from adapters.training.errors import PackageMissing, TraceMissing
from adapters.training.fit import fit_head
from adapters.training.observe import Readout, observe
from adapters.training.scorers import margins
from adapters.training.tokens import TokenExample
from adapters.training.train import train_adapter
from tests.adapters.training.conftest import small_datanet
from tests.adapters.training.tiny import tiny_config

PROMPT, ANSWER = [4, 6, 7, 8, 9], [10]
WEIGHTS_PPM = (700_000, 300_000)


@pytest.fixture(scope="module")
def works(base_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained adapters: of ann, bob and cat; of bob and cat, another scaling, and A trained too."""
    works = tmp_path_factory.mktemp("works")
    write_export("fewer", small_datanet()[1:], works / "fewer-export")
    exports = {"all": (export_dir, {}), "fewer": (works / "fewer-export", {"lora_alpha": 4, "train_a": True})}
    for seed, (name, (export, settings)) in enumerate(exports.items()):
        config = tiny_config(max_epochs=4, **settings)
        train_adapter(export, base_dir, works / name, seed=seed, config=config, trainer="tess", host="hal")
        config = HeadConfig(k=8, calibration_examples=6, report_examples=3, max_new_tokens=4, threads=1)
        fit_head(works / name, export, base_dir, config=config)
    return works


@pytest.fixture(scope="module")
def installed(works: Path, base_dir: Path) -> dict[str, str]:
    """Digests by name of the two, of their sum, and of that sum with one of them again; installed under `adapters`."""
    base, names = BaseModel.from_directory(base_dir), {}

    def place(name: str) -> Path:
        return works / "adapters" / hex_of(names[name])

    for name in ("all", "fewer"):
        names[name] = digest(manifest_bytes(works / name, base.digest))
        shutil.copytree(works / name, place(name))
    for name, parts in {"sum": ("all", "fewer"), "nested": ("sum", "all")}.items():
        chosen = [(place(part), weight_ppm) for part, weight_ppm in zip(parts, WEIGHTS_PPM, strict=True)]
        package = compose(chosen, base, works / "building")
        names[name] = package.digest
        package.directory.rename(place(name))
    return names


def load(root: Path, base_dir: Path, adapter: str, **where: object) -> AuditModel:
    package = root / "adapters" / hex_of(adapter)
    return AuditModel.load(package, base_dir, adapter=adapter, **{"works": root, **where})  # type: ignore[arg-type]


def ranks(installed: dict[str, str], name: str, rank: int) -> slice:
    """Where the ranks of a part of `sum` are: parts are in the order of their digests."""
    place = sorted((installed["all"], installed["fewer"])).index(installed[name])
    return slice(rank * place, rank * (place + 1))


def test_directions_are_the_parts_traces_weighted_and_side_by_side(
    works: Path, base_dir: Path, installed: dict[str, str]
) -> None:
    """Over contributors they sum to the composed B; who is in one part alone has nothing in the other's ranks."""
    found = load(works, base_dir, installed["sum"])
    assert found.head.contributors == ("ann", "bob", "cat")
    views = found.model.split(found.scorer.directions)
    whole = found.model.split(found.model.parameter)
    recorded = load_file(works / "all.work" / "trace.safetensors")["trace"]
    r = next(iter(found.model.modules.values()))[0].out_features // 2
    of_all, of_fewer = ranks(installed, "all", r), ranks(installed, "fewer", r)
    for module in found.model.modules:
        b, a = views[module], views[f"{module}.lora_A"]
        torch.testing.assert_close(b.sum(0), whole[module], rtol=1e-4, atol=1e-7)
        assert not b[0, :, of_fewer].any()
        assert b[1:, :, of_fewer].abs().amax((1, 2)).all()
        assert b[:, :, of_all].abs().amax((1, 2)).all()
        assert not a[:, of_all].any()
        assert a[1:, of_fewer].abs().amax((1, 2)).all()
    first = next(iter(found.model.modules))
    scaled = 0.7 * 8 / r * recorded[1, : views[first][1, :, of_all].numel()]
    torch.testing.assert_close(views[first][1, :, of_all].flatten(), scaled.float())


def test_scores_are_the_derivative_along_what_a_contributor_gave(
    works: Path, base_dir: Path, installed: dict[str, str]
) -> None:
    """Central differences of the margin of a token against its score through all positions, A and B moved together."""
    found = load(works, base_dir, installed["nested"])
    text = TokenExample(0, (*PROMPT, *ANSWER), (False,) * len(PROMPT) + (True,))
    seen = observe(found.model, Readout(found.model.causal_lm), [text], [found.scorer], position_local=False)
    parameter, step = found.model.parameter, 0.05
    trained = parameter.clone()

    def margin(moved: torch.Tensor) -> float:
        parameter.copy_(moved)
        logits = found.model.causal_lm(input_ids=torch.tensor([PROMPT])).logits[0, -1:]
        return float(margins(logits, torch.tensor(ANSWER)))

    for direction, score in zip(found.scorer.directions, seen.scores["trace"][0].tolist(), strict=True):
        slope = (margin(trained + step * direction) - margin(trained - step * direction)) / (2 * step)
        assert slope == pytest.approx(score, rel=1e-2, abs=1e-4)
    assert seen.scores["trace"].abs().min() > 1e-3


def test_what_a_composed_audit_lacks_is_named(
    works: Path, base_dir: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    """Another scorer, a part without trace, a part that is not installed: before any score."""
    for where in ({"scorer": "ekfac"}, {"works": None}):
        with pytest.raises(TraceMissing):
            load(works, base_dir, installed["sum"], **where)
    with pytest.raises(TraceMissing, match=f"part {min(installed['all'], installed['fewer'])}: no training trace"):
        load(works, base_dir, installed["sum"], works=tmp_path)
    alone = tmp_path / hex_of(installed["sum"])
    shutil.copytree(works / "adapters" / alone.name, alone)
    with pytest.raises(PackageMissing):
        AuditModel.load(alone, base_dir, adapter=installed["sum"], works=works)


def test_a_composition_is_expected_to_be_as_faithful_as_its_least_faithful_part(
    works: Path, installed: dict[str, str]
) -> None:
    """Its own report measures nothing; the interval an alarm compares with is a part's, also of a nested one."""
    reported = {name: reported_scorers(works / "adapters" / hex_of(adapter)) for name, adapter in installed.items()}
    lowest = min((reported["all"]["trace"], reported["fewer"]["trace"]), key=lambda report: report["low_ppm"])
    assert reported["sum"]["trace"] == lowest == reported["nested"]["trace"]
