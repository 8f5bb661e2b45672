"""Usage events: exact bytes, CloudEvents 1.0, and a named refusal for every bad field."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from metering.canonical import canonical_bytes, digest
from metering.errors import CanonicalError, EventInvalid
from metering.event import commit_tokens, decode_event, encode_event, parse_rfc3339, rfc3339

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "usage-event.json").read_text())
EXAMPLE = VECTORS["accepted"][0]["bytes"].encode()


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["fact"])
def test_accepted_vectors(vector):
    """Each vector decodes, encodes to the same bytes and has the stated digest."""
    data = vector["bytes"].encode()
    assert encode_event(decode_event(data)) == data
    assert digest(data) == vector["digest"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["fact"])
def test_refused_vectors(vector):
    """Each vector is refused, and the error starts with the field's name."""
    with pytest.raises(EventInvalid, match=f"^{vector['field']}: "):
        decode_event(vector["bytes"].encode())


def test_token_commitment_vector():
    """The commitment is the digest of specified bytes."""
    vector = VECTORS["tokens_commitment"]
    assert commit_tokens(bytes.fromhex(vector["salt_hex"]), vector["choices"]) == vector["commitment"]
    vector = VECTORS["tokens_commitment_with_prompts"]
    salt = bytes.fromhex(vector["salt_hex"])
    assert commit_tokens(salt, vector["choices"], vector["prompts"]) == vector["commitment"]


def test_the_bytes_are_a_cloudevent():
    """The CloudEvents library reads the journal's bytes as a valid 1.0 event."""
    event = JSONFormat().read(CloudEvent, EXAMPLE)
    assert event.get_id() == decode_event(EXAMPLE).id
    assert event.get_type() == "org.openledger.usage.v1"
    assert event.get_specversion() == "1.0"


@given(st.binary())
def test_any_bytes_decode_or_are_refused(data):
    """Fuzz: arbitrary bytes never escape as another exception."""
    with pytest.raises(EventInvalid):
        decode_event(data)


@given(
    st.sampled_from(sorted(json.loads(EXAMPLE)["data"])), st.none() | st.integers() | st.text() | st.lists(st.text())
)
def test_any_member_may_hold_anything(name, value):
    """Fuzz: whatever one member of a good event is replaced with, the decoder answers with an event or EventInvalid."""
    envelope = json.loads(EXAMPLE)
    envelope["data"][name] = value
    with contextlib.suppress(CanonicalError, EventInvalid):  # the value itself may have no canonical form
        data = canonical_bytes(envelope)
        assert encode_event(decode_event(data)) == data


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_are_exact(time_unix_us):
    """Microseconds survive the text form."""
    assert parse_rfc3339(rfc3339(time_unix_us)) == time_unix_us


@pytest.mark.parametrize("salt", [b"", b"x" * 31, b"x" * 33])
def test_salts_are_32_bytes(salt):
    """A short salt would make tokens guessable."""
    with pytest.raises(ValueError, match="32 bytes"):
        commit_tokens(salt, [[1]])
