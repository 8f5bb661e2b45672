"""Safetensors headers are checked before a byte of data is used."""

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from adapters.errors import BadSafetensors, NotFinite
from adapters.tensors import read_header


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def entry(begin: int, end: int, shape: list | None = None, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def write(path, content: bytes):
    path.write_bytes(content)
    return path


def test_a_file_of_the_library(tmp_path):
    """A file written by safetensors reads the same: names, shapes, dtypes, metadata and bytes."""
    arrays = {"b": np.arange(6, dtype="f4").reshape(2, 3), "a": np.ones((0, 4), "f2"), "c": np.array(3, "f4")}
    file = read_header(write(tmp_path / "f", save(arrays, {"format": "pt"})))
    assert file.metadata == {"format": "pt"}
    for name, array in arrays.items():
        assert file.tensors[name].shape == array.shape
        assert b"".join(file.blocks(name)) == array.tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"\x08\0\0\0", "truncated"),
        (raw({}, length=3_000), "truncated"),
        (raw({}, length=2**63), "truncated"),
        (raw(b"{"), "not JSON"),
        (raw(b"[]"), "not a JSON object"),
        (raw(b"[" * 50_000), "nested too deep"),
        (raw(b'{"a":{},"a":{}}'), "a key is repeated"),
        (raw({"__metadata__": {"a": 1}}), "must map strings to strings"),
        (raw({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "has not exactly"),
        (raw({"a": {**entry(0, 4), "x": 1}}, bytes(4)), "has not exactly"),
        (raw({"a": entry(0, 4, [-1])}, bytes(4)), "malformed"),
        (raw({"a": entry(0, 4, [1.0])}, bytes(4)), "malformed"),
        (raw({"a": entry(0, 4, [True])}, bytes(4)), "malformed"),
        (raw({"a": entry(0, 4, [1] * 9)}, bytes(4)), "malformed"),
        (raw({"a": {**entry(0, 4), "data_offsets": [0]}}, bytes(4)), "malformed"),
        (raw({"a": entry(0, 4, dtype="F33")}, bytes(4)), "unknown dtype"),
        (raw({"a": entry(0, 4, [2])}, bytes(4)), "does not fill"),
        (raw({"a": entry(4, 0, [1])}, bytes(4)), "does not fill"),
        (raw({"a": entry(0, 8, [2**40, 2**40])}, bytes(8)), "does not fill"),
        (raw({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "b overlaps another tensor"),
        (raw({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), "overlaps another tensor"),
        (raw({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "b leaves a gap"),
        (raw({"a": entry(4, 8)}, bytes(8)), "a leaves a gap"),
        (raw({"a": entry(0, 8)}, bytes(7)), "describes"),
        (raw({"a": entry(0, 8)}, bytes(9)), "describes"),
    ],
)
def test_refused_headers(tmp_path, content, message):
    """Truncated, malformed, overlapping and gapped files are refused, each for what it is."""
    with pytest.raises(BadSafetensors, match=message):
        read_header(write(tmp_path / "f", content))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200, deadline=None
)
@given(st.data())
def test_what_is_read_the_library_reads(tmp_path, data):
    """A damaged file is refused by name, or it is one that the library opens too with the same shapes."""
    content = bytearray(save({"a": np.arange(4, dtype="f4"), "b": np.ones((2, 1), "f2")}, {"k": "v"}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path / "f", bytes(content[: data.draw(st.integers(len(content) - 2, len(content)))]))
    try:
        file = read_header(path)
    except BadSafetensors:
        return
    with safe_open(path, "np") as opened:
        assert sorted(opened.keys()) == sorted(file.tensors)
        for name in file.tensors:
            assert tuple(opened.get_slice(name).get_shape()) == file.tensors[name].shape


def bfloat16(values: list[float]) -> bytes:
    return (np.array(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, -0.0], False),
        ([0.0, 1e-7], True),
        ([1.0, float("nan")], NotFinite),
        ([float("inf"), 0.0], NotFinite),
        ([0.0, float("-inf")], NotFinite),
        ([-1.5, 65504.0], True),
    ],
)
def test_values(tmp_path, dtype, values, expected):
    """NaN and infinities are found and zeros of either sign told from the smallest numbers, in every served dtype."""
    numpy_type = {"F32": "<f4", "F16": "<f2"}.get(dtype)
    data = np.array(values, numpy_type).tobytes() if numpy_type else bfloat16(values)
    file = read_header(write(tmp_path / "f", raw({"a": entry(0, len(data), [2], dtype)}, data)))
    if expected is NotFinite:
        with pytest.raises(NotFinite):
            file.check_values("a")
    else:
        assert file.check_values("a") is expected


def test_every_block_is_checked(tmp_path, monkeypatch):
    """A NaN in the last of many blocks is found, and a file cut after its header was read is refused."""
    monkeypatch.setattr("adapters.tensors.BLOCK_BYTES", 64)
    values = np.zeros(1000, "f4")
    values[-1] = np.nan
    path = write(tmp_path / "f", save({"a": values}))
    file = read_header(path)
    with pytest.raises(NotFinite):
        file.check_values("a")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadSafetensors, match="cut off"):
        file.check_values("a")
