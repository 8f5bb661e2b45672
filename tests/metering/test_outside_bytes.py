"""Whatever bytes or text come from outside, the log's parsers answer or refuse by name."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.canonical import canonical_bytes, parse_strict
from metering.errors import CanonicalError, LogInvalid, NoteInvalid, PolicyInvalid, ReceiptInvalid, WitnessRefused
from metering.log_copy import verify_log
from metering.note import NoteSigner, NoteVerifier
from metering.receipt import verify_receipt
from metering.witness import Witness
from metering.witness_policy import parse_policy

LOG = NoteSigner("a/log", b"\1" * 32)
HEAD = LOG.sign(f"a/log\n3\n{'A' * 43}=\n").encode()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
WORDS = st.sampled_from(["log", "witness", "group", "quorum", "none", "any", "all", "1", "W", "V", LOG.public_key, "#"])
LINES = st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=6).map("\n".join)


@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans(), st.booleans())
def test_any_layout_of_a_value_is_that_value(value, indent, ascii_only, sort):
    """Indented, escaped, in any order: the same value, hence the same canonical bytes."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, sort_keys=sort)
    assert canonical_bytes(parse_strict(text.encode())) == canonical_bytes(value)


@given(st.binary() | st.text().map(str.encode))
def test_other_bytes_have_no_value(data):
    """What `json` would not read the same way, or canonical JSON cannot write, is a CanonicalError."""
    try:
        value = parse_strict(data)
    except CanonicalError:
        return
    assert value == json.loads(data)


@given(st.text() | LINES)
def test_policies_and_lists_of_keys(text):
    """Both are text that somebody hands over."""
    for parse, error in ((parse_policy, PolicyInvalid), (NoteVerifier, NoteInvalid)):
        try:
            parse(text)
        except error:
            continue


@given(
    st.binary() | st.builds(lambda old, rest: b"old %d\n" % old + rest + b"\n" + HEAD, st.integers(0, 9), st.binary())
)
def test_requests_to_a_witness(body):
    """It cosigns, or refuses with a status of the specification."""
    with TemporaryDirectory() as folder:
        witness = Witness(Path(folder), "witness.example/w", LOG.public_key)
        try:
            line, status = witness.add_checkpoint(body, 1), 200
        except WitnessRefused as refused:
            line, status = "", refused.status
        assert line.startswith("— witness.example/w ") if status == 200 else status in (400, 403, 404, 409, 422)


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_copies_of_a_log(entries, tile):
    """Whatever lies in the files, a step is named."""
    with TemporaryDirectory() as folder:
        for path, body in (("checkpoint", HEAD), ("tile/entries/000.p/3", entries), ("tile/0/000.p/3", tile)):
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        with pytest.raises(LogInvalid):
            verify_log(Path(folder), LOG.public_key)


@given(st.binary() | VALUES.map(canonical_bytes))
def test_receipts(data):
    """No stranger's file is a receipt, and none breaks the verifier."""
    with pytest.raises(ReceiptInvalid):
        verify_receipt(data, LOG.public_key)
