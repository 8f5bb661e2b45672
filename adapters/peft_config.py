"""adapter_config.json of a PEFT LoRA: what it says, and the options that the engine would have to ignore.

Options that change what the adapter computes, and that vLLM 0.32 does not serve, are refused rather than ignored; so is
any option this page does not know, unless it is off. Patterns are never run as regular expressions: a hostile one can
take hours.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.errors import BadAdapterConfig, RankTooHigh, UnknownTargetModule, UnsupportedOption

ALL_LINEAR = "all-linear"

_HARMLESS = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
"""Options read below, or without a part in what a trained adapter computes."""

_PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of init_lora_weights that leave the base model's own weights alone."""

_PLAIN_NAME = re.compile(r"\w+(?:\.\w+)*")
_LAYER = re.compile(r"(?:.*\.)?layers\.(\d+)\.")


@dataclass(frozen=True)
class PeftConfig:
    """The parts that decide which tensors must be there, and their rank.

    `targets` is None when target_modules is a regular expression: it is not run, the tensors speak for themselves.
    `layers` is None for all.
    """

    r: int
    rank_pattern: Mapping[str, int]
    targets: tuple[str, ...] | None
    layers: frozenset[int] | None
    excluded: tuple[str, ...]
    record: Mapping[str, Any]

    @classmethod
    def of(cls, value: object, max_rank: int) -> "PeftConfig":
        """Raises BadAdapterConfig, UnsupportedOption, RankTooHigh."""
        if not isinstance(value, dict):
            raise BadAdapterConfig("adapter_config.json is not a JSON object")
        _check_options(value)
        r = _rank("r", value.get("r"))
        pattern = {key: _rank(f"rank_pattern[{key!r}]", rank) for key, rank in _pattern(value, "rank_pattern").items()}
        if max([r, *pattern.values()]) > max_rank:
            raise RankTooHigh(f"rank {max([r, *pattern.values()])} is over the limit of {max_rank}")
        for key, alpha in {"lora_alpha": value.get("lora_alpha"), **_pattern(value, "alpha_pattern")}.items():
            if isinstance(alpha, bool) or not isinstance(alpha, int | float) or alpha <= 0:
                raise BadAdapterConfig(f"{key} must be a positive number")
        excluded = value.get("exclude_modules") or []
        evaluated = isinstance(excluded, list)
        targets = _targets(value.get("target_modules"))
        return cls(
            r, pattern, targets if evaluated else None, _layers(value), tuple(excluded) if evaluated else (), value
        )

    def rank_of(self, module: str) -> int:
        """PEFT's rule: the first entry of rank_pattern that ends the module's path, else r."""
        return next((rank for key, rank in self.rank_pattern.items() if _ends(module, key)), self.r)

    def scaling_of(self, module: str) -> float:
        """PEFT's factor before B A: alpha / r, with rsLoRA alpha / sqrt(r); alpha by the same rule as the rank."""
        alphas = _pattern(self.record, "alpha_pattern")
        alpha = next((value for key, value in alphas.items() if _ends(module, key)), self.record["lora_alpha"])
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.record.get("use_rslora") else rank)

    def expected(self, modules: Iterable[str]) -> frozenset[str] | None:
        """The modules of the base that the config targets; None when it names them by a regular expression.

        Raises UnknownTargetModule for a target that no module answers to.
        """
        if self.targets is None:
            return None
        modules = tuple(modules)
        if self.targets == (ALL_LINEAR,):
            return frozenset(modules)
        chosen: set[str] = set()
        for target in self.targets:
            matching = {module for module in modules if _ends(module, target)}
            if not matching:
                raise UnknownTargetModule(f"the base model has no linear layer {target!r}")
            chosen |= matching
        return frozenset(module for module in chosen if not self._left_out(module))

    def _left_out(self, module: str) -> bool:
        if any(_ends(module, name) for name in self.excluded):
            return True
        layer = _LAYER.match(module)
        return self.layers is not None and (layer is None or int(layer[1]) not in self.layers)


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _check_options(value: Mapping[str, Any]) -> None:
    if value.get("peft_type") != "LORA":
        raise UnsupportedOption(f"peft_type {value.get('peft_type')!r}: only LORA is served", option="peft_type")
    if value.get("task_type") not in (None, "CAUSAL_LM"):
        raise UnsupportedOption(f"task_type {value['task_type']!r}: only CAUSAL_LM is served", option="task_type")
    if value.get("bias", "none") != "none":
        raise UnsupportedOption(f"bias {value['bias']!r}: only 'none' is served", option="bias")
    if value.get("init_lora_weights", True) not in _PLAIN_INITS:
        message = f"init_lora_weights {value['init_lora_weights']!r} changes the base model; convert it to a plain LoRA"
        raise UnsupportedOption(message, option="init_lora_weights")
    for option, setting in value.items():
        if option != "bias" and option not in _HARMLESS and setting:
            raise UnsupportedOption(f"the PEFT option {option} is not served", option=option)
    for option in ("use_rslora", "inference_mode"):
        if not isinstance(value.get(option, False), bool):
            raise BadAdapterConfig(f"{option} must be true or false")


def _rank(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadAdapterConfig(f"{name} must be a positive integer")
    return value


def _pattern(value: Mapping[str, Any], option: str) -> dict[str, Any]:
    pattern = value.get(option) or {}
    if not isinstance(pattern, dict):
        raise BadAdapterConfig(f"{option} must be an object")
    for key in pattern:
        if not _PLAIN_NAME.fullmatch(key):
            raise UnsupportedOption(f"{option}: {key[:60]!r} is a regular expression; name modules", option=option)
    return pattern


def _targets(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (ALL_LINEAR,) if value == ALL_LINEAR else None
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise BadAdapterConfig("target_modules must be a list of module names, 'all-linear' or a regular expression")
    return tuple(sorted(set(value)))


def _layers(value: Mapping[str, Any]) -> frozenset[int] | None:
    layers = value.get("layers_to_transform")
    if layers is None:
        return None
    chosen = layers if isinstance(layers, list) else [layers]
    if not all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in chosen):
        raise BadAdapterConfig("layers_to_transform must be a layer or a list of layers")
    return frozenset(chosen)
