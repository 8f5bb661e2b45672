"""Receipts verify offline, and not when anything in them was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metering import log
from metering.canonical import canonical_bytes
from metering.errors import ReceiptInvalid, UsageUnknown
from metering.note import NoteSigner
from metering.receipt import build_receipt, receipt_tenant, verify_receipt


@pytest.fixture
def receipt(market, settler) -> tuple[bytes, str]:
    """A receipt from the middle of a small log, and the log's public key."""
    events = market.serve(5)
    settler.drain()
    return build_receipt(market.ledger, events[2].id), market.config.log_public_key_path.read_text()


def test_a_receipt_verifies_offline(receipt, market):
    """The file and the public key suffice; what it says is what was settled."""
    data, key = receipt
    verified = verify_receipt(data, key)
    assert verified.tree_size == 8  # three documents, five requests
    assert verified.body["rating"]["total_nanos"] == 2161
    assert sum(verified.body["shares"]["provisional_ppm"].values()) == 10**6
    assert receipt_tenant(market.ledger, verified.body["event"]["id"]) == "acme"


def test_every_changed_byte_is_found(receipt):
    """Whatever byte is flipped (in its lowest, its case or its highest bit), verification fails."""
    data, key = receipt
    for position in range(len(data)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= bit
            with pytest.raises(ReceiptInvalid):
                verify_receipt(bytes(changed), key)


def test_added_or_dropped_bytes_are_found(receipt):
    """Nothing of it can be cut off, and nothing but white space be added."""
    data, key = receipt
    for changed in (data[:-1], data + b"}", data + data, b"\xef\xbb\xbf" + data, b"", b"null", b"[]"):
        with pytest.raises(ReceiptInvalid):
            verify_receipt(changed, key)


def test_the_layout_of_the_file_is_nobodys_concern(receipt):
    """What a tool reformatted, reordered or escaped has the same values, and verifies."""
    data, key = receipt
    value = json.loads(data)
    backwards = {name: value[name] for name in reversed(value)}
    for text in (json.dumps(value, indent=2), json.dumps(backwards, ensure_ascii=True), f" {data.decode()}\n"):
        assert verify_receipt(text.encode(), key) == verify_receipt(data, key)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"total_nanos":2161', b'"total_nanos":2161,"total_nanos":2161'),
        (b'"total_nanos":2161', b'"total_nanos":1,"total_nanos":2161'),
        (b'"total_nanos":2161', b'"total_nanos":2161.0'),
        (b'"total_nanos":2161', b'"total_nanos":2161e0'),
        (b'"total_nanos":2161', b'"total_nanos":18446744073709551617'),
        (b'"total_nanos":2161', b'"total_nanos":NaN'),
        (b'"USD"', b'"\\ud800"'),
        (b'{"body"', b"[" * 5000 + b'{"body"'),
    ],
)
def test_what_has_no_canonical_form_is_refused(receipt, old, new):
    """A repeated key, a float, a number beyond 64 bits, broken text: the step is `canonical`."""
    data, key = receipt
    assert old in data
    with pytest.raises(ReceiptInvalid) as failed:
        verify_receipt(data.replace(old, new, 1), key)
    assert failed.value.step == "canonical"


def forge(data: bytes, change) -> bytes:
    document = json.loads(data)
    change(document)
    return canonical_bytes(document)


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("format", lambda r: r.update(type="org.openledger.receipt.v2")),
        ("format", lambda r: r["body"].update(tip=1)),
        ("format", lambda r: r["body"]["rating"].pop("currency")),
        ("proof", lambda r: r.update(proof=r["proof"].replace("index 5", "index 05"))),
        ("proof", lambda r: r.update(proof="c2sp.org/tlog-proof@v2" + r["proof"][22:])),
        ("proof", lambda r: r.update(proof=7)),
        ("checkpoint", lambda r: r.update(proof=r["proof"].replace("\n8\n", "\n9\n"))),
        ("inclusion", lambda r: r.update(proof=r["proof"].replace("index 5", "index 4"))),
        ("inclusion", lambda r: r["body"]["rating"].update(total_nanos=1)),
        ("inclusion", lambda r: r["body"]["shares"]["provisional_ppm"].update(ada=1)),
    ],
)
def test_the_failing_step_is_named(receipt, step, change):
    """A forged receipt in canonical form fails at the step that its forger could not do."""
    data, key = receipt
    with pytest.raises(ReceiptInvalid) as failed:
        verify_receipt(forge(data, change), key)
    assert failed.value.step == step


def test_another_log_does_not_vouch(receipt):
    """A good receipt fails against the key of another log of the same name."""
    data, _ = receipt
    with pytest.raises(ReceiptInvalid) as failed:
        verify_receipt(data, NoteSigner("openledger.local/log", b"\1" * 32).public_key)
    assert failed.value.step == "checkpoint"


def test_old_receipts_outlive_a_rotated_key(receipt):
    """With several keys in log.pub, a receipt signed by the older one still verifies."""
    data, key = receipt
    verify_receipt(data, NoteSigner("openledger.local/log", b"\1" * 32).public_key + "\n" + key)


def test_unsettled_usage_has_no_receipt(market):
    """A receipt of an unknown or unsettled request is UsageUnknown."""
    with pytest.raises(UsageUnknown):
        build_receipt(market.ledger, "req_" + "0" * 32)


def test_public_entries_have_proofs_too(market, settler):
    """A document submitted by the gateway is included by the next batch, with a tlog-proof of its own."""
    name = log.append_entry(market.ledger, "contribution", b'{"text":"hello"}')
    settler.drain()
    assert log.wait_included(market.ledger, name, 1) == 3
    assert log.inclusion_proof_text(market.ledger, name).startswith("c2sp.org/tlog-proof@v1\nindex 3\n")


def test_the_published_receipt_verifies():
    """The vector beside the format page verifies with the key beside it."""
    vector = json.loads((Path(__file__).parents[1] / "vectors" / "receipt.json").read_text())
    assert verify_receipt(vector["receipt"].encode(), vector["public_key"]).leaf_index == 3
