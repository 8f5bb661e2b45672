"""A world: everything a method of attribution may look at, in one directory that is read without this project's code.

    world.json              {"type": "openledger-attribution-world/1", "base", "contributors", "lora", "training",
                             "weights", "replay_seconds",
                             "segments": [{"file", "first_step", "last_step", "learning_rate_sum"}]}
    package/                the adapter, PEFT layout
    train.jsonl             {"owner", "ids", "supervised", "text"}: owner indexes contributors, supervised is 0 or 1
    queries.jsonl           the same, and "kind": "held-out" or "own-answer"; owner is whose query it is
    segments/NN.safetensors the run in order: B of every module (PEFT's names) at the segment's middle step, and
                            "in_run." + name [C, out, r]: -sum of learning rate times each contributor's gradient
    peers/                  what the methods said (adapters/bench/rows.py)

`base` is an absolute path: a world is a work directory of one machine, not something to publish.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from adapters.bench.replay import Segment, replay
from adapters.canonical import parse_canonical
from adapters.example import Example
from adapters.package import CONFIG, RECORD, WEIGHTS
from adapters.training.checkpoint import read_checkpoint
from adapters.training.config import TrainingConfig
from adapters.training.dataset import TokenDataset, load_dataset, load_tokenizer
from adapters.training.errors import TraceMissing
from adapters.training.generate import greedy
from adapters.training.model import DTYPES, AdaptedModel, HiddenCache, load_adapted
from adapters.training.package_files import building
from adapters.training.packs import common_prefix
from adapters.training.progress import Progress, silent
from adapters.training.question import Question
from adapters.training.threads import threads
from adapters.training.tokens import TokenExample, chat_prompt, tokenize
from adapters.training.work import work_dir

TYPE = "openledger-attribution-world/1"
HELD_OUT, OWN_ANSWER = KINDS = ("held-out", "own-answer")
FOLDERS = ("package", "segments", "peers")


def write_world(
    out_dir: Path,
    export_dir: Path,
    package_dir: Path,
    base_dir: Path,
    questions: Sequence[Question],
    *,
    segments: int = 8,
    max_new_tokens: int = 40,
    progress: Progress = silent,
) -> Path:
    """Write the world of a trained package: its Datanet, its run replayed, held-out passages and its own answers.

    One segment takes no replay: then TracIn and In-Run Shapley see the final weights only. All or nothing. Raises
    ReplayDiffers, TraceMissing, ExportMismatch, and what opening the base and the package raises.
    """
    tokenizer = load_tokenizer(base_dir)
    data = load_dataset(export_dir, tokenizer)
    record = parse_canonical((package_dir / RECORD).read_bytes())
    config = _config(record["hyperparameters"])
    with building(out_dir) as directory, threads(config.threads):
        model = load_adapted(base_dir, package_dir)
        queries = _queries(model, tokenizer, questions, data, max_new_tokens, progress)
        started = time.monotonic()
        run = _run(model, data, package_dir, base_dir, record, config, segments, progress)
        seconds = round(time.monotonic() - started, 1)
        shared = data.examples[0].ids[: common_prefix(data.examples)]
        _write_jsonl(directory / "train.jsonl", [_line(e, tokenizer, shared) for e in data.examples])
        asked = [{**_line(e, tokenizer, shared), "kind": kind} for kind, e in queries]
        _write_jsonl(directory / "queries.jsonl", asked)
        for folder in FOLDERS:
            (directory / folder).mkdir()
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(package_dir / name, directory / "package" / name)
        world = {
            "type": TYPE,
            "base": str(base_dir.resolve()),
            "contributors": list(data.contributors),
            "datanet": data.version.datanet,
            "datanet_version": data.version.digest,
            "lora": {"alpha": config.lora_alpha, "modules": list(model.modules), "r": config.r},
            "segments": _write_segments(directory, model, run),
            "training": {**record["hyperparameters"], "epochs": record["epochs"], "seed": record["seed"]},
            "replay_seconds": seconds,
            "weights": record["weights"],
        }
        (directory / "world.json").write_text(json.dumps(world, indent=1, sort_keys=True) + "\n")
    for folder in FOLDERS:
        (out_dir / folder).chmod(0o755)
    return out_dir


def _run(
    model: AdaptedModel,
    data: TokenDataset,
    package_dir: Path,
    base_dir: Path,
    record: dict[str, Any],
    config: TrainingConfig,
    segments: int,
    progress: Progress,
) -> list[Segment]:
    """The run in `segments` segments; a single one is what training itself recorded, at the final weights."""
    if segments == 1:
        tensors, _ = read_checkpoint(work_dir(package_dir) / "trace.safetensors", record["weights"]) or ({}, {})
        if "in_run" not in tensors:
            raise TraceMissing(f"{work_dir(package_dir)} holds no training trace")
        return [Segment(1, record["steps"], 1.0, model.parameter.clone(), tensors["in_run"].float())]
    again = load_adapted(base_dir, package_dir, DTYPES[config.dtype])
    cache = HiddenCache(again, data.examples, common_prefix(data.examples), progress)
    return replay(
        again,
        cache,
        len(data.contributors),
        config,
        seed=record["seed"],
        epochs=record["epochs"],
        segments=segments,
        expected=model.parameter,
        progress=progress,
    )


def _config(record: dict[str, Any]) -> TrainingConfig:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return TrainingConfig(**values)


def _queries(
    model: AdaptedModel,
    tokenizer: Any,
    questions: Sequence[Question],
    data: TokenDataset,
    max_new_tokens: int,
    progress: Progress,
) -> list[tuple[str, TokenExample]]:
    """Each question with the answer of its source, then with the adapter's own greedy answer."""
    index = {name: i for i, name in enumerate(data.contributors)}
    owners = [index[question.contributor] for question in questions]
    turns = [[{"role": "user", "content": question.prompt}] for question in questions]
    passages = [
        tokenize(Example.of({"messages": [*turn, {"role": "assistant", "content": question.answer}]}), tokenizer, owner)
        for turn, question, owner in zip(turns, questions, owners, strict=True)
    ]
    prompts = [chat_prompt(turn, tokenizer) for turn in turns]
    answers = greedy(model, tokenizer, prompts, max_new_tokens, progress, "own answers")
    own = [TokenExample(owner, answer.ids, answer.supervised) for owner, answer in zip(owners, answers, strict=True)]
    return [*((HELD_OUT, passage) for passage in passages), *((OWN_ANSWER, answer) for answer in own)]


def _line(example: TokenExample, tokenizer: Any, shared: tuple[int, ...]) -> dict[str, Any]:
    """`text` leaves out the leading tokens that are those of `shared`: the system prompt before every example."""
    own = next((i for i, pair in enumerate(zip(example.ids, shared, strict=False)) if pair[0] != pair[1]), len(shared))
    return {
        "owner": example.owner,
        "ids": list(example.ids),
        "supervised": [int(learnt) for learnt in example.supervised],
        "text": tokenizer.decode(example.ids[own:], skip_special_tokens=True),
    }


def _write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows))


def _write_segments(directory: Path, model: AdaptedModel, segments: Sequence[Segment]) -> list[dict[str, Any]]:
    described = []
    for number, segment in enumerate(segments):
        tensors = {f"{name}.lora_B.weight": part.clone() for name, part in model.split(segment.parameter).items()}
        tensors |= {f"in_run.{name}": part.clone() for name, part in model.split(segment.in_run).items()}
        file = f"segments/{number:02}.safetensors"
        save_file(tensors, directory / file)
        described.append(
            {
                "file": file,
                "first_step": segment.first_step,
                "last_step": segment.last_step,
                "learning_rate_sum": segment.rate,
            }
        )
    return described
