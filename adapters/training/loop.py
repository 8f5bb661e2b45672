"""The training loop: epochs of packs, per-contributor gradients, decomposed AdamW steps, checkpoints."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from adapters.training.checkpoint import read_checkpoint, write_checkpoint
from adapters.training.config import TrainingConfig
from adapters.training.gradients import Capture
from adapters.training.model import AdaptedModel, HiddenCache
from adapters.training.packs import Pack, make_packs
from adapters.training.progress import Progress, silent
from adapters.training.trace import TraceState


@dataclass
class Position:
    """Where a run is: steps done, the current epoch with its loss so far (nats, summed in fp64), time spent."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    epoch_loss: float = 0.0
    epoch_tokens: int = 0
    mean_loss: float = 0.0
    compute_ms: int = 0


def run_training(
    model: AdaptedModel,
    cache: HiddenCache,
    contributors: int,
    config: TrainingConfig,
    *,
    seed: int,
    run: str,
    checkpoint: Path,
    progress: Progress = silent,
) -> tuple[TraceState, Position]:
    """Train `model.parameter` in place until the loss is low enough or the epochs are over.

    The order of packs depends on (seed, epoch) only, so a run resumed from `checkpoint` repeats the same steps and ends
    with the same bits. `run` names the run; a checkpoint of another run is refused (CheckpointMismatch).
    """
    state, at = TraceState.start(model.parameter, contributors), Position()
    saved = read_checkpoint(checkpoint, run)
    if saved is not None:
        state.restore(saved[0])
        model.parameter.copy_(state.parameter)
        at = Position(**json.loads(saved[1]["position"]))
    clock = _Clock(at)
    planned = config.max_epochs * len(epoch_batches(cache, config, seed, 0))
    while at.epoch < config.max_epochs:
        batches = epoch_batches(cache, config, seed, at.epoch)
        for batch in batches[at.batch :]:
            at.step += 1
            loss = _step(model, cache, state, batch, at, learning_rate(at.step, planned, config), config)
            at.batch += 1
            clock.tick()
            progress("training", at.step, max(planned, at.step + 1), f"epoch {at.epoch + 1}  loss {loss:.3f}")
            if clock.due(config.checkpoint_every_s):
                _save(checkpoint, state, at, run)
        at.mean_loss = at.epoch_loss / max(at.epoch_tokens, 1)
        at.epoch, at.batch, at.epoch_loss, at.epoch_tokens = at.epoch + 1, 0, 0.0, 0
        if at.mean_loss * 1e6 < config.stop_loss_ppm:
            break
    progress("training", at.step, at.step, f"epoch {at.epoch}  mean loss {at.mean_loss:.3f}")
    return state, at


def _step(
    model: AdaptedModel,
    cache: HiddenCache,
    state: TraceState,
    batch: list[Pack],
    at: Position,
    lr: float,
    config: TrainingConfig,
) -> float:
    """One step on one batch; returns its mean loss in nats a supervised token."""
    hidden, layout = cache.batch(batch)
    with Capture(model) as capture:
        _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = torch.nn.functional.cross_entropy(wide, layout.target)
        loss.backward()
    owner = torch.tensor([pack.owner for pack in batch])
    state.step(capture.by_owner(owner, len(state.trace)), at.step, lr, config)
    model.parameter.copy_(state.parameter)
    at.epoch_loss += float(loss.detach()) * len(layout.target)
    at.epoch_tokens += len(layout.target)
    return float(loss.detach())


def epoch_batches(
    cache: HiddenCache, config: TrainingConfig, seed: int, epoch: int, chosen: Sequence[int] | None = None
) -> list[list[Pack]]:
    """The batches of one epoch, in order, over all examples or the `chosen` ones."""
    draw = random.Random(f"{seed}/{epoch}")
    packs = make_packs(cache.examples, cache.prefix, config.pack_tokens, draw, chosen)
    return [packs[i : i + config.batch_packs] for i in range(0, len(packs), config.batch_packs)]


def learning_rate(step: int, planned: int, config: TrainingConfig) -> float:
    """Linear warm-up, then linear decay to a tenth over the planned steps."""
    peak = config.learning_rate_ppm / 1e6
    if step <= config.warmup_steps:
        return peak * step / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(planned - config.warmup_steps, 1))
    return peak * (1.0 - 0.9 * done)


def _save(checkpoint: Path, state: TraceState, at: Position, run: str) -> None:
    write_checkpoint(checkpoint, state.tensors(), {"run": run, "position": json.dumps(asdict(at))})


class _Clock:
    """Adds the time of each step to `position.compute_ms` and says when a checkpoint is due."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._last = self._saved = time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        self._position.compute_ms += round(1000 * (now - self._last))
        self._last = now

    def due(self, interval_s: int) -> bool:
        if self._last - self._saved < interval_s:
            return False
        self._saved = self._last
        return True
