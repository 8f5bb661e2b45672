"""Canonical JSON is one byte string per value."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.canonical import canonical_json, parse_canonical
from adapters.errors import InvalidDocument
from adapters.strict_json import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé€😀\n", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_round_trip(value):
    """Canonical bytes are JSON of the same value, and parse back to it."""
    content = canonical_json(value)
    assert json.loads(content) == value
    assert parse_canonical(content) == value


def test_vectors():
    """The bytes are those of the vectors, which follow RFC 8785's examples."""
    for vector in json.loads((Path(__file__).parent.parent / "vectors/datanet-canonical.json").read_text()):
        assert canonical_json(vector["value"]).hex() == vector["hex"], vector["name"]


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), {1: 2}, 2**63, -(2**63) - 1, 10**400, b"x", "\ud800", {"\ud800": 1}, {"a": {1, 2}}]
)
def test_refused_values(value):
    """Floats, other types, integers out of range and lone surrogates have no canonical form."""
    with pytest.raises(InvalidDocument):
        canonical_json(value)


def test_depth_is_bounded():
    """Nesting past 32 is refused, from values and from bytes."""
    value: list = []
    for _ in range(40):
        value = [value]
    with pytest.raises(InvalidDocument):
        canonical_json(value)
    with pytest.raises(InvalidDocument):
        parse_canonical(b"[" * 100_000 + b"]" * 100_000)


def test_depth_is_bounded_whatever_the_recursion_limit():
    """A library that raises the interpreter's limit does not turn deep nesting into a crash."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000_000)
    try:
        for deep in (b"[" * 1_000_000, b'{"a":' * 500_000, b"NaN" + b"[" * 1_000_000):
            with pytest.raises(InvalidDocument):
                parse_canonical(deep)
            with pytest.raises(ValueError, match="JSON"):
                parse_json(deep)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    "content", [b'{"b":1,"a":2}', b'{"a":1,"a":1}', b'{"a": 1}', b'"\\u0041"', b"1.0", b"", b"\xff", b"NaN"]
)
def test_other_spellings_are_refused(content):
    """Bytes that are JSON, but not the canonical bytes of their value, are refused."""
    with pytest.raises(InvalidDocument):
        parse_canonical(content)
