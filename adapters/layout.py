"""The files of an adapter package, and how large they may be."""

from dataclasses import dataclass

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
HEAD = "attribution_head.safetensors"
RECORD = "training_record.json"
FIDELITY = "fidelity.json"
COMPOSITION = "composition.json"
FILES = (CONFIG, WEIGHTS, HEAD, RECORD, FIDELITY, COMPOSITION)
JSON_FILES = (CONFIG, RECORD, FIDELITY, COMPOSITION)
MANIFEST = "manifest.json"
"""Added to an installed package by the registry; its digest is the adapter's."""

_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True)
class PackageLimits:
    """Upper bounds: bytes of the whole package and of each JSON file; rank r of an adapter."""

    package_bytes: int = 2 << 30
    json_bytes: int = 1 << 20
    max_rank: int = 64


def is_pickle(name: str) -> bool:
    """By its name: a file of a kind that torch or Python loads by running it."""
    return name.lower().endswith(_PICKLES)
