"""A tiny world: a random 3-layer Llama, three contributors, one short training run."""

import dataclasses
from pathlib import Path

import pytest
import torch

from adapters.bench.peers.reader import World
from adapters.bench.world import write_world
from adapters.training.question import Question
from adapters.training.train import train_adapter
from tests.adapters.training.conftest import base_dir, export_dir  # noqa: F401
from tests.adapters.training.tiny import tiny_config

QUESTIONS = [
    Question("please tell me : what is the colour of ann boat", "ann boat is red .", "red", "ann"),
    Question("what is the colour of bob boat ?", "bob boat is green .", "green", "bob"),
]


@pytest.fixture(scope="session")
def package_dir(base_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    directory = tmp_path_factory.mktemp("packages") / "colours"
    config = tiny_config(max_epochs=4)
    train_adapter(export_dir, base_dir, directory, seed=0, config=config, trainer="t", host="t")
    return directory


@pytest.fixture(scope="session")
def world_dir(
    base_dir: Path,  # noqa: F811
    export_dir: Path,  # noqa: F811
    package_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    directory = tmp_path_factory.mktemp("worlds") / "colours"
    return write_world(directory, export_dir, package_dir, base_dir, QUESTIONS, segments=3, max_new_tokens=4)


@pytest.fixture
def world(world_dir: Path) -> World:
    """Read anew for each test, in fp64 so that sums can be compared closely."""
    read = World(world_dir)
    read.upper  # noqa: B018
    return read


def double(world: World) -> World:
    """The same world computing in fp64."""
    world.peft_model.double()
    world.__dict__["rows"] = tuple(
        dataclasses.replace(part, hidden=part.hidden.double(), weight=part.weight.double()) for part in world.rows
    )
    return world


def brute_force(world: World, *, margin: bool, queries: bool) -> torch.Tensor:
    """Gradient of each sequence [N, P] by autograd through the whole model, one unpadded sequence at a time."""
    parameters = [p for n, p in world.peft_model.named_parameters() if ".lora_B." in n]
    found = []
    for line in world.queries if queries else world.train:
        logits = world.peft_model(input_ids=torch.tensor([line.ids])).logits[0].double()
        total = logits.new_zeros(())
        for at in range(1, len(line.ids)):
            if line.supervised[at]:
                log_p = logits[at - 1].log_softmax(0)[line.ids[at]]
                total = total + (log_p - torch.log1p(-log_p.exp()) if margin else log_p)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters)]))
    return torch.stack(found).double()
