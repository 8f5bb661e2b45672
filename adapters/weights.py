"""adapter_model.safetensors against its config and the served base model."""

import re
from collections.abc import Mapping

from adapters.base import BaseModel
from adapters.digests import is_digest
from adapters.errors import (
    TensorMissing,
    UnknownTargetModule,
    WrongBase,
    WrongDtype,
    WrongShape,
    WrongTensorName,
    ZeroDelta,
)
from adapters.peft_config import PeftConfig
from adapters.tensors import TensorFile

DTYPES = ("F32", "F16", "BF16")
BASE_KEY = "base"
"""Key of the safetensors metadata under which our trainer names the base model's digest."""

MAX_NAME = 512

_NAME = re.compile(r"base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight")


def check_weights(file: TensorFile, config: PeftConfig, base: BaseModel) -> Mapping[str, int]:
    """The rank of each adapted module.

    With A (r, in) and B (out, r) of a module, the adapter adds (lora_alpha / r) B A to its W (out, in). Raises, in this
    order: WrongBase (another digest in the metadata), WrongTensorName, UnknownTargetModule, TensorMissing, WrongDtype,
    WrongBase (in or out features), WrongShape (rank), NotFinite, ZeroDelta.
    """
    claimed = file.metadata.get(BASE_KEY)
    if is_digest(claimed) and claimed != base.digest:
        raise WrongBase(f"the adapter was trained on the base model {claimed}; {base.name}, {base.digest}, is served")
    pairs = _pairs(file)
    _check_modules(pairs, config, base)
    for module, pair in pairs.items():
        _check_shapes(file, module, pair, config.rank_of(module), base)
    live = [
        module
        for module, pair in pairs.items()
        if all([file.check_values(name) for name in pair.values()])  # a list: every tensor is checked for NaN
    ]
    if not live:
        raise ZeroDelta("A or B is zero in every module: the adapter would answer as the base model does")
    return {module: config.rank_of(module) for module in sorted(pairs)}


def _pairs(file: TensorFile) -> dict[str, dict[str, str]]:
    """{module: {"A": tensor name, "B": tensor name}}"""
    pairs: dict[str, dict[str, str]] = {}
    for name in file.tensors:
        match = _NAME.fullmatch(name[:MAX_NAME])
        if match is None:
            raise WrongTensorName(
                f"tensor {name[:200]!r} is not base_model.model.<module>.lora_A.weight or lora_B.weight"
            )
        pairs.setdefault(match["module"], {})[match["side"]] = name
    return pairs


def _check_modules(pairs: Mapping[str, Mapping[str, str]], config: PeftConfig, base: BaseModel) -> None:
    expected = config.expected(base.modules)
    for module in pairs:
        if module not in base.modules:
            raise UnknownTargetModule(f"{base.name} has no linear layer {module}")
        if expected is not None and module not in expected:
            raise UnknownTargetModule(f"adapter_config.json does not target {module}, but a tensor does")
    for module, pair in pairs.items():
        for side in "AB":
            if side not in pair:
                raise TensorMissing(f"{module} lacks lora_{side}")
    missing = sorted((expected or frozenset()) - set(pairs))
    if missing or not pairs:
        first = missing[0] if missing else "every module"
        raise TensorMissing(f"adapter_config.json targets {first}, but no tensor is there for it")


def _check_shapes(file: TensorFile, module: str, pair: Mapping[str, str], rank: int, base: BaseModel) -> None:
    a, b = file.tensors[pair["A"]], file.tensors[pair["B"]]
    for name in pair.values():
        if file.tensors[name].dtype not in DTYPES:
            raise WrongDtype(f"{name} is {file.tensors[name].dtype}; served are {', '.join(DTYPES)}")
    layer = base.modules[module]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise WrongShape(f"{module}: lora_A and lora_B must have two dimensions")
    if (b.shape[0], a.shape[1]) != (layer.out_features, layer.in_features):
        raise WrongBase(
            f"{module}: the adapter is for a layer of {a.shape[1]} to {b.shape[0]} features, "
            f"in {base.name} it has {layer.in_features} to {layer.out_features}"
        )
    if (a.shape[0], b.shape[1]) != (rank, rank):
        raise WrongShape(
            f"{module}: lora_A has rank {a.shape[0]}, lora_B {b.shape[1]}, adapter_config.json says {rank}"
        )
