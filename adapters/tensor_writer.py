"""Safetensors with the same bytes for the same content.

The library writes metadata in the order of a hash table, so two writes of one head differ and so would its digest.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_DTYPES = {np.dtype("<f4"): "F32", np.dtype("<f8"): "F64"}


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write fp32 and fp64 arrays by name order, behind a header with sorted keys padded with spaces to 8 bytes.

    Format: 8 bytes little-endian header length, JSON header, data (github.com/huggingface/safetensors).
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in sorted(tensors):
        begin, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # the tensors may be mapped from `path` itself
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).tobytes())
    os.replace(temporary, path)
