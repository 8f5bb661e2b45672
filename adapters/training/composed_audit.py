"""The exact scorer of a composed adapter: the traces of its parts, in the places that compose() gave them.

With A = [A_1; A_2; ...] and B = [w_1 s_1 B_1, w_2 s_2 B_2, ...] (adapters/compose.py), T_p,c the trace of B_p and g the
gradient of the margin at a module's output,

    T_c = [w_1 s_1 T_1,c, w_2 s_2 T_2,c, ...]     g^T T_c h = sum over p of w_p (s_p g)^T T_p,c h_p = sum w_p score_p,c

on the same activations: the scores of the parts, weighted as the composed head weights them. Where A was trained too,
its trace lies in A's rows as it is: the gradient there, B_p^T g, carries w_p s_p already.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adapters.composition import UNIT_PPM, Composition, parse_composition
from adapters.digests import hex_of
from adapters.layout import COMPOSITION, CONFIG, HEAD, RECORD, WEIGHTS
from adapters.peft_config import PeftConfig
from adapters.record import parse_record
from adapters.tensors import read_header
from adapters.training.config import TrainingConfig
from adapters.training.errors import TraceMissing
from adapters.training.head import AttributionHead
from adapters.training.model import AdaptedModel
from adapters.training.scorers import DirectionScorer
from adapters.training.work import find_trace, missing_trace

PREFIX, LORA_A = "base_model.model.", ".lora_A"
MAX_RANK = 1 << 16  # what is installed was checked against the gateway's limit


@dataclass(frozen=True)
class _Directions:
    """Of a package: [C, out, in] by the name of what was trained, its rank, and PEFT's factor of each module."""

    contributors: tuple[str, ...]
    rank: int
    scaling: dict[str, float]
    maps: dict[str, Tensor]


def composition_of(package_dir: Path) -> Composition | None:
    """What a package is composed of; None for one that was trained."""
    path = package_dir / COMPOSITION
    return parse_composition(path.read_bytes()) if path.is_file() else None


def trains_a(package_dir: Path) -> bool:
    """Whether A was trained too, of the package or of any part; parts lie beside what is composed of them."""
    composition = composition_of(package_dir)
    if composition is None:
        record = json.loads((package_dir / RECORD).read_bytes())
        return TrainingConfig.of(record.get("hyperparameters", {})).train_a
    return any(trains_a(part_dir(package_dir, part)) for part in composition.parts)


def part_dir(package_dir: Path, adapter: str) -> Path:
    """Where a part is installed."""
    return package_dir.parent / hex_of(adapter)


def composed_scorer(
    model: AdaptedModel, package_dir: Path, contributors: Sequence[str], works: Path, name: str
) -> DirectionScorer:
    """The scorer `name` (trace or in_run) of a composed package in `model`. Raises TraceMissing."""
    why = missing_trace(package_dir, works)
    if why is not None:
        raise TraceMissing(why)
    found = _directions(package_dir, works, name, list(model.modules))
    rows = [contributors.index(contributor) for contributor in found.contributors]
    directions = torch.zeros(len(contributors), model.parameter.numel())
    for key, view in model.split(directions).items():
        if key in found.maps:
            view[rows] = found.maps[key]
    return DirectionScorer(name, directions)


def _directions(package_dir: Path, works: Path, name: str, order: Sequence[str]) -> _Directions:
    composition = composition_of(package_dir)
    if composition is None:
        return _of_trained(package_dir, works, name, order)
    return _side_by_side(
        [
            (weight_ppm / UNIT_PPM, _directions(part_dir(package_dir, part), works, name, order))
            for part, weight_ppm in composition.parts.items()
        ]
    )


def _side_by_side(parts: Sequence[tuple[float, _Directions]]) -> _Directions:
    """Of weighted parts in the order of their ranks; a composed LoRA has scaling 1."""
    contributors = tuple(sorted({name for _, part in parts for name in part.contributors}))
    rank = sum(part.rank for _, part in parts)
    maps: dict[str, Tensor] = {}
    at = 0
    for weight, part in parts:
        rows = [contributors.index(name) for name in part.contributors]
        for key, own in part.maps.items():
            if key.endswith(LORA_A):
                whole = maps.setdefault(key, torch.zeros(len(contributors), rank, own.shape[2]))
                whole[rows, at : at + own.shape[1]] = own
            else:
                whole = maps.setdefault(key, torch.zeros(len(contributors), own.shape[1], rank))
                whole[rows, :, at : at + own.shape[2]] = weight * part.scaling[key] * own
        at += part.rank
    return _Directions(contributors, rank, {key: 1.0 for key in maps if not key.endswith(LORA_A)}, maps)


def _of_trained(package_dir: Path, works: Path, name: str, order: Sequence[str]) -> _Directions:
    """The trace of a trained package, cut along its weights: every B in `order`, behind them every A if trained."""
    from safetensors import safe_open

    weights = read_header(package_dir / WEIGHTS).tensors
    config = PeftConfig.of(json.loads((package_dir / CONFIG).read_bytes()), MAX_RANK)
    trace = find_trace(works, parse_record((package_dir / RECORD).read_bytes()).weights)
    assert trace is not None, "it was there a moment ago"
    with safe_open(trace, framework="pt") as file:
        flat = file.get_tensor(name).float()
    modules = [module for module in order if f"{PREFIX}{module}.lora_B.weight" in weights]
    shapes = {module: weights[f"{PREFIX}{module}.lora_B.weight"].shape for module in modules}
    if trains_a(package_dir):
        shapes |= {f"{module}{LORA_A}": weights[f"{PREFIX}{module}{LORA_A}.weight"].shape for module in modules}
    sizes = [out * into for out, into in shapes.values()]
    maps = {
        key: part.unflatten(1, shape)
        for (key, shape), part in zip(shapes.items(), flat.split(sizes, dim=1), strict=True)
    }
    contributors = AttributionHead.load(package_dir / HEAD).contributors
    rank = max(shapes[module][1] for module in modules)
    return _Directions(contributors, rank, {module: config.scaling_of(module) for module in modules}, maps)
