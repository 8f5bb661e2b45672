"""Canonical JSON: one value, one serialisation, and nothing else is read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.canonical import canonical_bytes, digest, is_digest, parse_canonical
from metering.errors import CanonicalError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "canonical.json").read_text())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["fact"])
def test_accepted_vectors(vector):
    """Each vector's value has exactly the vector's bytes and digest."""
    data = bytes.fromhex(vector["canonical_hex"])
    assert canonical_bytes(json.loads(vector["json"])) == data
    assert digest(data) == vector["digest"]
    assert canonical_bytes(parse_canonical(data)) == data


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["fact"])
def test_refused_vectors(vector):
    """Each vector's bytes are refused."""
    with pytest.raises(CanonicalError):
        parse_canonical(bytes.fromhex(vector["bytes_hex"]))


@given(VALUES)
def test_canonical_bytes_read_back_as_the_same_value(value):
    """parse is the inverse of serialise, and serialising again gives the same bytes."""
    data = canonical_bytes(value)
    assert json.loads(data) == value
    assert canonical_bytes(parse_canonical(data)) == data


@given(st.binary())
def test_any_bytes_parse_exactly_or_are_refused(data):
    """Whatever comes from outside is either canonical or a CanonicalError."""
    with contextlib.suppress(CanonicalError):
        assert canonical_bytes(parse_canonical(data)) == data


@pytest.mark.parametrize(
    "value",
    [1.0, float("nan"), 2**63, -(2**63) - 1, {1: 2}, {"a": b"x"}, "\ud800", {"\ud800": 1}, {1, 2}, [[1.5]]],
    ids=repr,
)
def test_values_without_a_canonical_form(value):
    """Floats, big integers, other types and lone surrogates are refused wherever they stand."""
    with pytest.raises(CanonicalError):
        canonical_bytes(value)


def test_deep_nesting_is_refused_not_a_crash():
    """A thousand brackets are a CanonicalError."""
    with pytest.raises(CanonicalError):
        parse_canonical(b"[" * 1000 + b"]" * 1000)


def test_digests():
    """A digest is sha256: and 64 lower-case hex digits, no more."""
    assert is_digest(digest(b""))
    assert not any(map(is_digest, ("", digest(b"")[:-1], digest(b"").upper(), digest(b"") + "\n", None, 7)))
