"""The training run once more, kept at a few points: what trajectory methods need and a package does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from adapters.bench.errors import ReplayDiffers
from adapters.training.config import TrainingConfig
from adapters.training.gradients import Capture
from adapters.training.loop import epoch_batches, learning_rate
from adapters.training.model import AdaptedModel, HiddenCache
from adapters.training.packs import Pack
from adapters.training.progress import Progress, silent
from adapters.training.trace import TraceState


@dataclass(frozen=True)
class Segment:
    """A stretch of consecutive steps. parameter [P] fp32: the weights at its middle step.

    in_run [C, P] fp32: -sum over its steps of the learning rate times each contributor's (clipped) gradient;
    rate: the sum of its learning rates.
    """

    first_step: int
    last_step: int
    rate: float
    parameter: Tensor
    in_run: Tensor


def replay(
    model: AdaptedModel,
    cache: HiddenCache,
    contributors: int,
    config: TrainingConfig,
    *,
    seed: int,
    epochs: int,
    segments: int,
    expected: Tensor,
    progress: Progress = silent,
) -> list[Segment]:
    """Repeat `loop.run_training` from B = 0 for `epochs` epochs, cut into at most `segments` segments.

    Raises ReplayDiffers when the end is more than 1e-3 (relative to the largest weight) from `expected` [P].
    """
    model.parameter.zero_()
    state = TraceState.start(model.parameter, contributors)
    schedule = [batch for epoch in range(epochs) for batch in epoch_batches(cache, config, seed, epoch)]
    planned = config.max_epochs * len(epoch_batches(cache, config, seed, 0))
    bounds = [round(i * len(schedule) / segments) for i in range(segments + 1)]
    found = []
    for first, end in pairwise(bounds):
        if first == end:
            continue
        before, rate, middle = state.in_run.clone(), 0.0, model.parameter.clone()
        for at in range(first, end):
            if at == (first + end) // 2:
                middle = model.parameter.clone()
            step_rate = learning_rate(at + 1, planned, config)
            state.step(_gradient(model, cache, schedule[at], contributors), at + 1, step_rate, config)
            model.parameter.copy_(state.parameter)
            rate += step_rate
            progress("replaying the run", at + 1, len(schedule), "")
        found.append(Segment(first + 1, end, rate, middle, (state.in_run - before).float()))
    error = float((model.parameter - expected).abs().max() / expected.abs().max())
    if error > 1e-3:
        raise ReplayDiffers(f"the repeated run ends {error:.1e} of the largest weight away from the package")
    return found


def _gradient(model: AdaptedModel, cache: HiddenCache, batch: list[Pack], contributors: int) -> Tensor:
    """Gradient of the batch's mean loss per contributor [C, P]."""
    hidden, layout = cache.batch(batch)
    with Capture(model) as capture:
        _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
        torch.nn.functional.cross_entropy(logits.float(), layout.target).backward()
    return capture.by_owner(torch.tensor([pack.owner for pack in batch]), contributors)
