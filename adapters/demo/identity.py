"""base.json: the name and digest of a base model's directory. Torch-free."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

BASE_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files of a base directory that decide what it computes; those present are hashed."""


@dataclass(frozen=True)
class BaseIdentity:
    """A base model: the name clients ask for and `sha256:` of its canonical file list."""

    name: str
    digest: str


def base_digest(base_dir: Path) -> str:
    """Digest of a base directory.

    sha256 of the canonical JSON `{"files":{name: "sha256:..."},"type":"base"}` over the BASE_FILES that exist and any
    further `*.safetensors` shard. Raises FileNotFoundError when the directory has no safetensors.
    """
    names = {name for name in BASE_FILES if (base_dir / name).is_file()}
    shards = {path.name for path in base_dir.glob("*.safetensors")}
    if not shards:
        raise FileNotFoundError(f"no *.safetensors in {base_dir}")
    files = {name: _file_digest(base_dir / name) for name in sorted(names | shards)}
    document = json.dumps({"files": files, "type": "base"}, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(document.encode()).hexdigest()


def read_base_identity(base_dir: Path) -> BaseIdentity:
    """The identity recorded in `base_dir/base.json`. Raises FileNotFoundError when it is absent."""
    record = json.loads((base_dir / "base.json").read_text())
    return BaseIdentity(name=record["name"], digest=record["digest"])


def write_base_identity(base_dir: Path, name: str) -> BaseIdentity:
    """Hash `base_dir`, write `base.json` atomically, and return it. Reading the weights takes about 1 s per GB."""
    identity = BaseIdentity(name=name, digest=base_digest(base_dir))
    temporary = base_dir / ".base.json.tmp"
    temporary.write_text(json.dumps({"digest": identity.digest, "name": identity.name}, sort_keys=True))
    os.replace(temporary, base_dir / "base.json")
    return identity


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
