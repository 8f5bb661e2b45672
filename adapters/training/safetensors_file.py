"""Safetensors with the same bytes for the same content.

The library writes metadata in the order of a hash table, so two writes of one head differ and so would its digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {torch.float32: "F32", torch.float64: "F64"}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write fp32 and fp64 tensors by name order, behind a header with sorted keys padded with spaces to 8 bytes.

    Format: 8 bytes little-endian header length, JSON header, data (github.com/huggingface/safetensors).
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    data = bytearray()
    for name in sorted(tensors):
        content = tensors[name].detach().contiguous().numpy().tobytes()
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
