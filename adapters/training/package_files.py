"""Write a PEFT-layout package from a trained model: config, weights, record. All or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file

from adapters.canonical import canonical_json
from adapters.digests import file_digest
from adapters.package import CONFIG, RECORD, WEIGHTS
from adapters.training.model import AdaptedModel


@contextmanager
def building(out_dir: Path) -> Iterator[Path]:
    """A directory beside `out_dir` that replaces it when the block ends well, and vanishes when it does not."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    try:
        yield directory
        directory.chmod(0o755)
        for path in directory.iterdir():
            path.chmod(0o644)
        if out_dir.exists():
            shutil.rmtree(out_dir)
        os.replace(directory, out_dir)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def write_weights(directory: Path, model: AdaptedModel) -> str:
    """Write adapter_config.json and adapter_model.safetensors (fp32, PEFT's keys); the digest of the latter.

    A as it was drawn or trained, B as it was trained: base_model.model.<module>.lora_{A,B}.weight.
    """
    tensors = {}
    for name, (a, b) in model.modules.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.weight.detach().clone()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.weight.detach().clone()
    save_file(tensors, directory / WEIGHTS, {"format": "pt"})
    config = model.peft.peft_config["default"].to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    config["inference_mode"] = True
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n")
    return file_digest(directory / WEIGHTS)


def write_record(directory: Path, record: Mapping[str, object]) -> None:
    """Write training_record.json (docs/formats/training-record.md)."""
    (directory / RECORD).write_bytes(canonical_json(record))
