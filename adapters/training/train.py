"""Train one LoRA adapter on an exported Datanet version, with its training trace."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from adapters.base import BaseModel
from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import digest
from adapters.package import RECORD
from adapters.training.checkpoint import write_checkpoint
from adapters.training.config import TrainingConfig
from adapters.training.dataset import TokenDataset, load_dataset, load_tokenizer
from adapters.training.loop import Position, run_training
from adapters.training.model import DTYPES, AdaptedModel, HiddenCache, add_lora, load_base
from adapters.training.package_files import building, write_record, write_weights
from adapters.training.packs import common_prefix
from adapters.training.progress import Progress, silent
from adapters.training.threads import threads
from adapters.training.trace import TraceState
from adapters.training.work import work_dir

CODE_VERSION = "0.1.0"


@dataclass(frozen=True)
class TrainedAdapter:
    """What a run leaves behind: a PEFT package directory and what its record says."""

    package_dir: Path
    weights_digest: str
    datanet_version: str
    contributors: tuple[str, ...]
    steps: int
    final_loss_ppm: int
    compute_ms: int


def train_adapter(
    export_dir: Path,
    base_dir: Path,
    out_dir: Path,
    *,
    seed: int,
    config: TrainingConfig | None = None,
    trainer: str,
    host: str,
    progress: Progress = silent,
) -> TrainedAdapter:
    """Train on `export_dir` (a Datanet version's export) over the base in `base_dir`; write a package to `out_dir`.

    The same export, base, config, seed and code give the same weights, whether or not the run was killed and started
    again: it resumes from `<out_dir>.work`, where the training trace stays afterwards. A finished package of the same
    run is returned as it is. Raises ExportMismatch, ExampleTooLong, NothingToLearn, CheckpointMismatch,
    UnsupportedBase.
    """
    config = config or TrainingConfig()
    with threads(config.threads):
        base = BaseModel.from_directory(base_dir)
        data = load_dataset(export_dir, load_tokenizer(base_dir))
        facts = _facts(base, data, config, seed, trainer, host)
        run = digest(canonical_json(facts))
        finished = _finished(out_dir, run)
        if finished is not None:
            return finished
        work = work_dir(out_dir)
        work.mkdir(parents=True, exist_ok=True)
        model = add_lora(load_base(base_dir, DTYPES[config.dtype]), config, base.name, seed)
        cache = HiddenCache(model, data.examples, common_prefix(data.examples), progress)
        state, end = run_training(
            model,
            cache,
            len(data.contributors),
            config,
            seed=seed,
            run=run,
            checkpoint=work / "checkpoint.safetensors",
            progress=progress,
        )
        weights = _write_package(out_dir, model, {**facts, "run": run}, state, end)
        tensors = {"trace": state.trace, "in_run": state.in_run}
        write_checkpoint(work / "trace.safetensors", tensors, {"run": weights})
        (work / "checkpoint.safetensors").unlink(missing_ok=True)
    trained = _finished(out_dir, run)
    assert trained is not None
    return trained


def _facts(
    base: BaseModel, data: TokenDataset, config: TrainingConfig, seed: int, trainer: str, host: str
) -> dict[str, object]:
    """The members of the training record that are known before the first step; their digest names the run."""
    return {
        "type": "training-record",
        "base": base.digest,
        "code": {"digest": _code_digest(), "torch": torch.__version__, "version": CODE_VERSION},
        "contributors": data.counts(),
        "datanet": data.version.datanet,
        "datanet_version": data.version.digest,
        "hyperparameters": config.record(),
        "seed": seed,
        "trainer": trainer,
        "host": host,
    }


def _write_package(
    out_dir: Path, model: AdaptedModel, facts: dict[str, object], state: TraceState, end: Position
) -> str:
    with building(out_dir) as directory:
        weights = write_weights(directory, model)
        result = {
            "weights": weights,
            "steps": end.step,
            "epochs": end.epoch,
            "final_loss_ppm": round(end.mean_loss * 1e6),
            "compute_ms": end.compute_ms,
            "trace_error_ppb": round(state.identity_error() * 1e9),
        }
        write_record(directory, {**facts, **result})
    return weights


def _finished(out_dir: Path, run: str) -> TrainedAdapter | None:
    path = out_dir / RECORD
    if not path.is_file():
        return None
    record = parse_canonical(path.read_bytes())
    if record.get("run") != run or not (work_dir(out_dir) / "trace.safetensors").is_file():
        return None
    return TrainedAdapter(
        package_dir=out_dir,
        weights_digest=record["weights"],
        datanet_version=record["datanet_version"],
        contributors=tuple(sorted(record["contributors"])),
        steps=record["steps"],
        final_loss_ppm=record["final_loss_ppm"],
        compute_ms=record["compute_ms"],
    )


def _code_digest() -> str:
    """sha256 over this folder's sources, in name order: what produced the weights."""
    hasher = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        hasher.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return "sha256:" + hasher.hexdigest()
