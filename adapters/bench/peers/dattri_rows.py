"""dattri: DataInf and LoGra."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from adapters.bench.peers.dattri_llm_rows import Sequences
from adapters.bench.peers.gradients import per_example
from adapters.bench.peers.reader import World
from adapters.bench.peers.result import Result, Stopwatch

LOGRA_DIMENSION = 256
"""Per module: 16 random directions of what enters B by 16 of what leaves it."""


def datainf(world: World, work: Path) -> Result:
    """DataInf (Kwon et al. 2024): the inverse of each module's damped empirical Fisher, averaged example by example.

    Damping is 0.1 of the mean squared gradient entry. dattri would repeat a vmapped backward pass of every query for
    every training batch; it is handed the gradients instead, at the point where it says that subclasses may.
    """
    from dattri.algorithm import IFAttributorDataInf
    from dattri.task import AttributionTask

    rows, queries = world.rows
    clock = Stopwatch()
    gradients = {False: per_example(world.upper, rows, margin=False), True: Tensor()}

    class Given(IFAttributorDataInf):
        def generate_train_rep(self, ckpt_idx: int, data: tuple[Tensor, ...]) -> Tensor:
            return gradients[False][data[0].flatten()]

        def generate_test_rep(self, ckpt_idx: int, data: tuple[Tensor, ...]) -> Tensor:
            return gradients[True][data[0].flatten()]

    shapes = [world.upper.get_parameter(f"{name}.weight").shape for name in world.upper.lora_modules()]
    holder = nn.ModuleList(nn.Linear(r, out, bias=False) for out, r in shapes)
    task = AttributionTask(lambda p, d: torch.zeros(()), holder, dict(holder.state_dict()))
    damping = 0.1 * float(gradients[False].square().mean())
    attributor = Given(task, regularization=damping)
    train = DataLoader(TensorDataset(torch.arange(len(rows))), batch_size=len(rows))
    asked = DataLoader(TensorDataset(torch.arange(len(queries))), batch_size=8)
    attributor.cache(train)
    build = clock.lap()
    gradients[True] = per_example(world.upper, queries, margin=True)
    influence = attributor.attribute(train, asked)
    stored = gradients[False].numel() * 4
    scores = world.by_contributor(influence)
    return Result(scores, "dattri", version("dattri"), "margin", build, clock.lap(), stored, False)


def logra(world: World, work: Path) -> Result:
    """LoGra (Choe et al. 2024): factorised random projections and the damped empirical Fisher in their space."""
    from dattri.algorithm import LoGraAttributor
    from dattri.task import AttributionTask

    def loss(model: nn.Module, batch: dict[str, Tensor], _device: str) -> Tensor:
        return model(**batch).loss

    rows, queries = world.rows
    clock = Stopwatch()
    torch.manual_seed(0)
    model = _WithLoss(world.upper)
    names = [f"upper.{name}" for name in world.upper.lora_modules()]
    task = AttributionTask(loss, model, dict(model.state_dict()))
    attributor = LoGraAttributor(
        task, layer_names=names, hessian="eFIM", proj_dim=LOGRA_DIMENSION, damping=None, offload="cpu"
    )
    loaders = [DataLoader(Sequences(part), batch_size=16) for part in (rows, queries)]
    with torch.enable_grad():
        attributor.cache(loaders[0])
        build = clock.lap()
        model.margin = True
        influence = attributor.attribute(loaders[0], loaders[1])
    stored = 4 * len(rows) * LOGRA_DIMENSION * len(names)
    note = f"{LOGRA_DIMENSION} projected numbers a module"
    return Result(
        world.by_contributor(influence), "dattri", version("dattri"), "margin", build, clock.lap(), stored, False, note
    )


@dataclass
class _Loss:
    loss: Tensor


class _WithLoss(nn.Module):
    """Upper in the shape that dattri asks of queries: called with a batch's fields, gives an object with a loss."""

    def __init__(self, upper: nn.Module) -> None:
        super().__init__()
        self.upper = upper
        self.margin = False

    def forward(self, hidden: Tensor, at: Tensor, target: Tensor, weight: Tensor, index: Tensor) -> _Loss:
        return _Loss(-self.upper(hidden, at, target, weight, margin=self.margin).sum())
