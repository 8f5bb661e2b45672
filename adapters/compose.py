"""Composing adapters: one LoRA that adds up several, and one head whose scores add up theirs. Torch-free.

With parts p of weight w_p and PEFT scaling s_p, for every module that any part adapts (a part that does not has zeros):

    A = [A_1; A_2; ...]    B = [w_1 s_1 B_1, w_2 s_2 B_2, ...]    so that  B A = sum over p of w_p s_p B_p A_p

with lora_alpha = r, which makes PEFT's own factor 1. Its shrink output is h = [A_1 x; A_2 x; ...]. What contributor c
added to B_p enters w_p times, and so does its first-order effect on any margin, therefore

    K[c,l] = [w_1 K_1[c,l], w_2 K_2[c,l], ...]    and    score_c = sum over p of w_p score_{p,c}

exactly, on the same activations. Columns of P that parts share are held once, others side by side: u is linear in P's
columns. Where a part has tap directions H or contributor factors Q, those lie side by side as well, and K is zero
where parts meet. docs/formats/composition.md.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters.base import BaseModel
from adapters.canonical import canonical_json, parse_canonical
from adapters.composition import UNIT_PPM, Composition, check_parts
from adapters.digests import digest, file_digest
from adapters.errors import BadComposition, CompositionMismatch
from adapters.head import FORMAT, METHODS
from adapters.layout import COMPOSITION, CONFIG, FIDELITY, HEAD, WEIGHTS, PackageLimits
from adapters.package import Package, inspect
from adapters.peft_config import PeftConfig
from adapters.tensor_writer import write_tensors
from adapters.tensors import TensorFile, read_header

PREFIX = "base_model.model."


@dataclass(frozen=True)
class _Part:
    """A validated package, its weight, and where its ranks begin in the composed A and B."""

    package: Package
    config: PeftConfig
    weights: TensorFile
    weight_ppm: int
    offset: int

    @property
    def factor(self) -> float:
        return self.weight_ppm / UNIT_PPM

    def pair(self, module: str) -> tuple[np.ndarray, np.ndarray]:
        """A (r, in) and w s B (out, r) of a module, fp64."""
        a, b = (self.weights.read(f"{PREFIX}{module}.lora_{side}.weight").astype("<f8") for side in "AB")
        return a, self.factor * self.config.scaling_of(module) * b


def compose(
    parts: Sequence[tuple[Path, int]], base: BaseModel, out: Path, limits: PackageLimits | None = None
) -> Package:
    """Write the composition of package directories and their weights in ppm to `out`; the validated result.

    The same parts and weights, in any order, give the same bytes. It has a head when all parts do. Nothing is left when
    it fails: raises what `inspect` raises for a part (WrongBase for another base model) or for the whole (RankTooHigh),
    and BadComposition.
    """
    limits = limits or PackageLimits()
    found = {path: inspect(path, base, limits) for path, _ in parts}
    chosen = check_parts((found[path].digest, weight_ppm) for path, weight_ppm in parts)
    by_digest = {package.digest: package for package in found.values()}
    if out.exists():
        raise BadComposition(f"{out} is there already")
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(building, _aligned(by_digest, chosen, limits), base, chosen)
        package = inspect(building, base, limits)
        building.chmod(0o755)
        building.rename(out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return Package(**{**vars(package), "directory": out})


def check_composed(package: Package, parts: Mapping[str, Path], base: BaseModel, limits: PackageLimits) -> None:
    """Compose the installed `parts` (by digest) again and compare. Raises CompositionMismatch when it is another."""
    assert package.composition is not None
    with tempfile.TemporaryDirectory(prefix=".composing.", dir=package.directory.parent) as folder:
        chosen = [(parts[adapter], weight_ppm) for adapter, weight_ppm in package.composition.parts.items()]
        expected = compose(chosen, base, Path(folder) / "package", limits)
    if expected.digest != package.digest:
        raise CompositionMismatch(f"composing these parts gives {expected.digest}, the package is {package.digest}")


def _aligned(found: Mapping[str, Package], chosen: Mapping[str, int], limits: PackageLimits) -> list[_Part]:
    parts, offset = [], 0
    for adapter, weight_ppm in chosen.items():
        package = found[adapter]
        config = PeftConfig.of(json.loads((package.directory / CONFIG).read_bytes()), limits.max_rank)
        parts.append(_Part(package, config, read_header(package.directory / WEIGHTS), weight_ppm, offset))
        offset += package.rank
    return parts


def _write(directory: Path, parts: Sequence[_Part], base: BaseModel, chosen: Mapping[str, int]) -> None:
    rank = sum(part.package.rank for part in parts)
    modules = sorted({module for part in parts for module in part.package.target_modules})
    tensors: dict[str, np.ndarray] = {}
    for module in modules:
        shape = base.modules[module]
        a = np.zeros((rank, shape.in_features), "<f4")
        b = np.zeros((shape.out_features, rank), "<f4")
        for part in parts:
            if module in part.package.target_modules:
                own_a, own_b = part.pair(module)
                ranks = slice(part.offset, part.offset + len(own_a))
                a[ranks], b[:, ranks] = own_a, own_b
        tensors |= {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}
    write_tensors(directory / WEIGHTS, tensors, {"base": base.digest, "format": "pt"})
    (directory / CONFIG).write_text(json.dumps(_config(modules, rank, base.name), indent=2, sort_keys=True) + "\n")
    composition = Composition(base.digest, file_digest(directory / WEIGHTS), chosen)
    (directory / COMPOSITION).write_bytes(composition.encode())
    if all(part.package.head for part in parts):
        _write_head(directory, parts, base, composition, rank)


def _config(modules: Sequence[str], rank: int, base_name: str) -> dict[str, object]:
    return {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": list(modules),
        "task_type": "CAUSAL_LM",
    }


def _write_head(directory: Path, parts: Sequence[_Part], base: BaseModel, composition: Composition, rank: int) -> None:
    files = [read_header(part.package.directory / HEAD) for part in parts]
    contributors = sorted({name for part in parts for name in part.package.contributors})
    taps = list(dict.fromkeys(tap for part in parts for tap in part.package.taps))
    P, columns = _merged_basis([file.read("P") for file in files])
    tensors = {"P": P} | _merged_heads(parts, files, columns, contributors, taps, rank)
    method = min((part.package.method for part in parts), key=METHODS.index)
    report = canonical_json(_report(parts, composition, method, sum(tensor.nbytes for tensor in tensors.values())))
    (directory / FIDELITY).write_bytes(report)
    metadata = {
        "format": FORMAT,
        "base": base.digest,
        "weights": composition.weights,
        "taps": json.dumps(taps),
        "contributors": json.dumps(contributors),
        "method": method,
        "datanet_version": digest(composition.encode()),
        "fidelity": digest(report),
    }
    write_tensors(directory / HEAD, tensors, metadata)


def _merged_basis(bases: Sequence[np.ndarray]) -> tuple[np.ndarray, list[list[int]]]:
    """All different columns of several P [D, k], and where each P's columns are among them."""
    merged: dict[bytes, tuple[int, np.ndarray]] = {}
    places = [
        [merged.setdefault(column.tobytes(), (len(merged), column))[0] for column in np.ascontiguousarray(P.T)]
        for P in bases
    ]
    return np.ascontiguousarray(np.stack([column for _, column in merged.values()], axis=1)), places


def _merged_heads(
    parts: Sequence[_Part],
    files: Sequence[TensorFile],
    columns: Sequence[list[int]],
    contributors: Sequence[str],
    taps: Sequence[str],
    rank: int,
) -> dict[str, np.ndarray]:
    """K, and H and Q where some part has one: each part's K in a block of its own (m, tap or direction, k, rank)."""
    with_h, with_q = (any(name in file.tensors for file in files) for name in "HQ")
    H = np.zeros((len(taps), rank, sum(map(_directions, files)) if with_h else 0), "<f4")
    Q = np.zeros((len(contributors), sum(file.tensors["K"].shape[0] for file in files) if with_q else 0), "<f4")
    k = 1 + max(max(column) for column in columns)
    blocks = [Q.shape[1] or len(contributors), 1 if with_h else len(taps), k, H.shape[2] or rank]
    K = np.zeros(blocks, "<f4")
    factor = direction = 0
    for part, file, column in zip(parts, files, columns, strict=True):
        own = part.factor * file.read("K").astype("<f8")
        names = [contributors.index(name) for name in part.package.contributors]
        tapped = [taps.index(tap) for tap in part.package.taps]
        ranks = range(part.offset, part.offset + part.package.rank)
        rows: Sequence[int] = names
        if with_q:
            rows = range(factor, factor := factor + len(own))
            Q[np.ix_(names, rows)] = file.read("Q") if "Q" in file.tensors else np.eye(len(own))
        if with_h:
            count = _directions(file)
            own_h = file.read("H") if "H" in file.tensors else np.eye(count).reshape(len(tapped), -1, count)
            if "H" not in file.tensors:
                own = own.transpose(0, 2, 1, 3).reshape(len(own), 1, len(column), count)
            places = range(direction, direction := direction + count)
            H[np.ix_(tapped, ranks[: own_h.shape[1]], places)] = own_h
            K[np.ix_(rows, [0], column, places)] = own
        else:
            K[np.ix_(rows, tapped, column, ranks[: own.shape[3]])] = own
    return {"K": K} | ({"H": H} if with_h else {}) | ({"Q": Q} if with_q else {})


def _directions(file: TensorFile) -> int:
    """Columns of a head's H; without one, every rank of every tap is a direction."""
    _, taps, _, width = file.tensors["K"].shape
    return taps * width


def _report(parts: Sequence[_Part], composition: Composition, method: str, head_bytes: int) -> dict[str, object]:
    """fidelity_ppm is 0: the parts' reports were measured on other models than their sum."""
    reports = [parse_canonical((part.package.directory / FIDELITY).read_bytes()) for part in parts]
    composed = [
        {
            "adapter": part.package.digest,
            "fidelity": digest(canonical_json(report)),
            "fidelity_ppm": report["fidelity_ppm"],
            "weight_ppm": part.weight_ppm,
        }
        for part, report in zip(parts, reports, strict=True)
    ]
    return {
        "base": composition.base,
        "composed_of": composed,
        "fidelity_ppm": 0,
        "head_bytes": head_bytes,
        "lds": None,
        "method": method,
        "type": "fidelity",
        "weights": composition.weights,
    }
