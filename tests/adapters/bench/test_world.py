"""A world holds the run it came from."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters.bench.errors import ReplayDiffers
from adapters.bench.peers.gradients import per_example
from adapters.bench.peers.reader import World
from adapters.bench.replay import replay
from adapters.bench.world import write_world
from adapters.training.dataset import load_dataset, load_tokenizer
from adapters.training.errors import TraceMissing
from adapters.training.model import HiddenCache, load_adapted
from adapters.training.packs import common_prefix
from adapters.training.train import train_adapter
from tests.adapters.bench.conftest import QUESTIONS, brute_force
from tests.adapters.training.tiny import tiny_config


def test_in_run_sums_add_up_to_those_of_training(world: World, package_dir: Path) -> None:
    """The segments' in-run sums, added, are the ones that training itself recorded."""
    recorded = load_file(package_dir.with_name(package_dir.name + ".work") / "trace.safetensors")["in_run"]
    names = [world.upper.parameter_of(module) for module in world.facts["lora"]["modules"]]
    total = sum(torch.cat([sums[n].flatten(1) for n in names], dim=1) for _, _, sums in world.segments())
    torch.testing.assert_close(total, recorded.float(), rtol=1e-4, atol=1e-7)


def test_one_segment_is_what_training_recorded(
    base_dir: Path, export_dir: Path, package_dir: Path, tmp_path: Path
) -> None:
    """Without a replay: the final weights and the recorded in-run sums; a package without its trace is refused."""
    world = World(write_world(tmp_path / "w", export_dir, package_dir, base_dir, QUESTIONS, segments=1))
    ((rate, weights, sums),) = world.segments()
    recorded = load_file(package_dir.with_name(package_dir.name + ".work") / "trace.safetensors")["in_run"]
    torch.testing.assert_close(torch.cat([part.flatten(1) for part in sums.values()], dim=1), recorded.float())
    for name, value in weights.items():
        torch.testing.assert_close(world.upper.get_parameter(name).detach(), value)
    alone = shutil.copytree(package_dir, tmp_path / "alone")
    with pytest.raises(TraceMissing):
        write_world(tmp_path / "v", export_dir, alone, base_dir, QUESTIONS, segments=1)
    assert not (tmp_path / "v").exists()
    assert rate == 1.0


def test_a_run_in_bfloat16_is_replayed_and_read_in_bfloat16(base_dir: Path, export_dir: Path, tmp_path: Path) -> None:
    """The replay ends at the package's weights, and gradients of the padded rows are the model's own to rounding."""
    config = tiny_config(max_epochs=2, dtype="bfloat16")
    train_adapter(export_dir, base_dir, tmp_path / "p", seed=0, config=config, trainer="t", host="t")
    world = World(write_world(tmp_path / "w", export_dir, tmp_path / "p", base_dir, QUESTIONS, segments=2))
    assert world.upper.norm.weight.dtype == torch.bfloat16
    found = per_example(world.upper, world.rows[1], margin=True).double()
    exact = brute_force(world, margin=True, queries=True)
    assert float(torch.nn.functional.cosine_similarity(found, exact).min()) > 0.98


def test_queries_are_held_out_passages_and_the_adapters_own_answers(world: World) -> None:
    """Both kinds for every question, with its owner; only the answer is supervised."""
    assert [query.kind for query in world.queries] == ["held-out"] * 2 + ["own-answer"] * 2
    index = [world.contributors.index(question.contributor) for question in QUESTIONS]
    assert [query.owner for query in world.queries] == index * 2
    for passage, answer in zip(world.queries[:2], world.queries[2:], strict=True):
        start = passage.supervised.index(True)
        assert passage.ids[:start] == answer.ids[:start]
        assert all(answer.supervised[start:])


def test_a_package_of_another_run_is_refused(base_dir: Path, export_dir: Path, package_dir: Path) -> None:
    """A replay that does not end at the package's weights, here at another rate, is ReplayDiffers and no world."""
    model = load_adapted(base_dir, package_dir)
    data = load_dataset(export_dir, load_tokenizer(base_dir))
    cache = HiddenCache(model, data.examples, common_prefix(data.examples))
    expected = model.parameter.clone()
    with pytest.raises(ReplayDiffers, match="away from the package"):
        replay(
            model,
            cache,
            3,
            tiny_config(max_epochs=4, learning_rate_ppm=4_000),
            seed=0,
            epochs=4,
            segments=2,
            expected=expected,
        )
