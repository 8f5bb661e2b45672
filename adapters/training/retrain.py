"""Retraining subsets of a Datanet by the served adapter's own recipe, several runs at once.

A run of all contributors from the adapter's seed repeats `loop.run_training` without its trace: same batches, same
learning rates, AdamW by the same equations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.training.config import TrainingConfig
from adapters.training.loop import epoch_batches, learning_rate
from adapters.training.model import HiddenCache
from adapters.training.packs import Pack
from adapters.training.scorers import margins
from adapters.training.stack import StackedModel
from adapters.training.subsets import Run


@dataclass(frozen=True)
class Retrained:
    """One finished run: what was trained, flat [P], fp32 on the host; steps, last epoch's mean loss (nats), its share
    of the seconds."""

    run: Run
    parameter: Tensor
    steps: int
    loss: float
    seconds: float


def retrain(model: StackedModel, cache: HiddenCache, runs: Sequence[Run], config: TrainingConfig) -> list[Retrained]:
    """Train `runs` side by side, a step of each at a time; a run that is finished waits for the others."""
    started = time.monotonic()
    model.start([run.seed for run in runs])
    courses = [_Course(run, cache, config) for run in runs]
    optimizer = _AdamW(model.parameter, config)
    while True:
        batches = [course.batch() for course in courses]
        if not any(batches):
            break
        for course, loss in zip(courses, _step(model, cache, optimizer, courses, batches, config), strict=True):
            course.advance(loss)
    seconds = (time.monotonic() - started) / len(runs)
    parameters = model.parameter.cpu()
    return [
        Retrained(course.run, parameters[i].clone(), course.step, course.mean_loss, seconds)
        for i, course in enumerate(courses)
    ]


class _Course:
    """Where one run is: its step, epoch and next batch."""

    def __init__(self, run: Run, cache: HiddenCache, config: TrainingConfig) -> None:
        self.run = run
        self._cache, self._config = cache, config
        members = set(run.members)
        self._chosen = [i for i, example in enumerate(cache.examples) if example.owner in members]
        self._batches = self._epoch(0)
        self.planned = config.max_epochs * len(self._batches)
        self.step = self._epochs = self._at = 0
        self._loss, self._tokens = 0.0, 0
        self.mean_loss = 0.0

    def batch(self) -> list[Pack]:
        """What to train on next; empty when the run is over."""
        return self._batches[self._at] if self._at < len(self._batches) else []

    def advance(self, loss: tuple[float, int]) -> None:
        """Count a step with its summed loss over so many tokens; without tokens the run is over already."""
        if not loss[1]:
            return
        self.step, self._at = self.step + 1, self._at + 1
        self._loss, self._tokens = self._loss + loss[0], self._tokens + loss[1]
        if self._at < len(self._batches):
            return
        self.mean_loss = self._loss / self._tokens
        self._epochs, self._loss, self._tokens = self._epochs + 1, 0.0, 0
        over = self._epochs == self._config.max_epochs or self.mean_loss * 1e6 < self._config.stop_loss_ppm
        self._batches, self._at = ([] if over else self._epoch(self._epochs)), 0

    def _epoch(self, epoch: int) -> list[list[Pack]]:
        return epoch_batches(self._cache, self._config, self.run.seed, epoch, self._chosen)


def _step(
    model: StackedModel,
    cache: HiddenCache,
    optimizer: _AdamW,
    courses: Sequence[_Course],
    batches: Sequence[list[Pack]],
    config: TrainingConfig,
) -> list[tuple[float, int]]:
    """One step of every run that has a batch; (summed loss, tokens) of each."""
    rows = max(map(len, batches))
    empty = Pack(0, ())
    padded = [pack for batch in batches for pack in [*batch, *[empty] * (rows - len(batch))]]
    hidden, layout = cache.batch(padded)
    _, logits = model.normed_and_logits(model.upper(hidden.detach(), layout), layout)
    each = torch.nn.functional.cross_entropy(logits.float(), layout.target, reduction="none")
    run_of = layout.row // rows
    tokens = torch.bincount(run_of, minlength=len(batches))
    (each / tokens[run_of]).sum().backward()
    rates = [learning_rate(course.step + 1, course.planned, config) for course in courses]
    optimizer.step(model.parameter, model.gradient(), [course.step + 1 for course in courses], rates, tokens > 0)
    summed = torch.zeros(len(batches), device=each.device).index_add_(0, run_of, each.detach())
    return list(zip(summed.tolist(), tokens.tolist(), strict=True))


class _AdamW:
    """torch.optim.AdamW with clipping by norm, for G runs at different steps and rates: rows of [G, P]."""

    def __init__(self, parameter: Tensor, config: TrainingConfig) -> None:
        self._first = torch.zeros_like(parameter)
        self._second = torch.zeros_like(parameter)
        self._beta1, self._beta2 = config.beta1_ppm / 1e6, config.beta2_ppm / 1e6
        self._epsilon, self._decay = config.epsilon_ppt / 1e12, config.weight_decay_ppm / 1e6
        self._clip = config.clip_norm_ppm / 1e6

    def step(
        self, parameter: Tensor, gradient: Tensor, steps: Sequence[int], rates: Sequence[float], active: Tensor
    ) -> None:
        """Move the active rows in place."""
        step, lr = (parameter.new_tensor(values)[:, None] for values in (steps, rates))
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient = gradient * (self._clip / (norm + 1e-6)).clamp_max(1.0)
        first = self._beta1 * self._first + (1 - self._beta1) * gradient
        second = self._beta2 * self._second + (1 - self._beta2) * gradient * gradient
        denominator = (second / (1 - self._beta2**step)).sqrt() + self._epsilon
        moved = parameter * (1 - lr * self._decay) - lr * (first / (1 - self._beta1**step)) / denominator
        keep = active[:, None]
        for old, new in ((self._first, first), (self._second, second), (parameter, moved)):
            old.copy_(torch.where(keep, new, old))


@torch.no_grad()
def text_margins(model: StackedModel, cache: HiddenCache, batches: Sequence[Sequence[Pack]]) -> Tensor:
    """Margin in nats of every supervised token of the cache's texts under each run of `model`: [G, N], fp32.

    Tokens in the order of the texts and, within a text, of its tokens.
    """
    runs = len(model.parameter)
    found, example = [], []
    for batch in batches:
        hidden, layout = cache.batch(batch)
        repeated = hidden.detach().repeat(runs, 1, 1)
        tiled = layout.repeated(runs, len(batch))
        _, logits = model.normed_and_logits(model.upper(repeated, tiled), tiled)
        found.append(margins(logits.float(), tiled.target).view(runs, -1).cpu())
        example.append(layout.example.cpu())
    order = torch.cat(example).argsort(stable=True)
    return torch.cat(found, dim=1)[:, order]
