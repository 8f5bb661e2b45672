"""Safetensors files, read without trusting them and without torch.

The format (huggingface/safetensors): 8 bytes little-endian header length N, N bytes of JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string: string}}`, then the data, which the
tensors must cover without gap or overlap.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.errors import BadSafetensors, NotFinite
from adapters.strict_json import parse_json

MAX_HEADER_BYTES = 16 << 20
BLOCK_BYTES = 4 << 20

ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip

_PATTERNS: dict[str, tuple[str, int]] = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
"""The integer a float is read as, and its exponent bits: all of them set means infinity or NaN."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `begin` and `end` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header was checked against its size."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a tensor, at most 4 MiB at a time."""
        tensor = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(tensor.begin)
            remaining = tensor.end - tensor.begin
            while remaining:
                block = file.read(min(BLOCK_BYTES, remaining))
                if not block:
                    raise BadSafetensors(f"{self.path.name}: cut off within {name}")
                remaining -= len(block)
                yield block

    def read(self, name: str) -> np.ndarray:
        """An F32, F16 or BF16 tensor as a float32 array (exact)."""
        tensor = self.tensors[name]
        content = b"".join(self.blocks(name))
        if tensor.dtype == "BF16":
            values = (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(content, {"F32": "<f4", "F16": "<f2"}[tensor.dtype]).astype("<f4")
        return values.reshape(tensor.shape)

    def check_values(self, name: str) -> bool:
        """True if any element of an F32, F16 or BF16 tensor is not zero. Raises NotFinite for NaN or infinity."""
        integer, exponent = _PATTERNS[self.tensors[name].dtype]
        nonzero = False
        for block in self.blocks(name):
            bits = np.frombuffer(block, dtype=integer)
            if np.any((bits & exponent) == exponent):
                raise NotFinite(f"{self.path.name}: {name} holds NaN or infinity")
            nonzero = nonzero or bool(np.any(bits << 1))  # the sign of a negative zero is shifted out
        return nonzero


def read_header(path: Path) -> TensorFile:
    """Parse and check the header of a safetensors file; the data is not read. Raises BadSafetensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise BadSafetensors(f"{path.name}: truncated, or a header of more than {MAX_HEADER_BYTES} bytes")
        header = _parse_header(path.name, file.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadSafetensors(f"{path.name}: __metadata__ must map strings to strings")
    tensors = {name: _tensor(path.name, name, entry, 8 + length) for name, entry in header.items()}
    _check_layout(path.name, tensors, 8 + length, size)
    return TensorFile(path, tensors, metadata)


def _parse_header(file: str, content: bytes) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise BadSafetensors(f"{file}: the header is {error}") from None
    if not isinstance(value, dict):
        raise BadSafetensors(f"{file}: the header is not a JSON object")
    return value


def _tensor(file: str, name: str, entry: object, data: int) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadSafetensors(f"{file}: {name} has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise BadSafetensors(f"{file}: {name} has a malformed shape or data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise BadSafetensors(f"{file}: {name} has the unknown dtype {dtype!r}")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BITS[dtype] // 8:
        raise BadSafetensors(f"{file}: {name} of shape {shape} and dtype {dtype} does not fill bytes {begin} to {end}")
    return Tensor(dtype, tuple(shape), data + begin, data + end)


def _counts(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**63 for item in value)
    )


def _check_layout(file: str, tensors: Mapping[str, Tensor], data: int, size: int) -> None:
    position = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            kind = "overlaps another tensor" if tensor.begin < position else "leaves a gap before it"
            raise BadSafetensors(f"{file}: {name} {kind}")
        position = tensor.end
    if position != size:
        raise BadSafetensors(f"{file}: the header describes {position} bytes, the file has {size}")
