"""Payout addresses: signed or recorded, in sequence, and never guessed."""

from __future__ import annotations

import dataclasses

import pytest

from metering.chain.binding import Binding, find_binding, parse_binding, record_binding, sign_binding
from metering.chain.errors import BindingInvalid, BindingMissing
from metering.chain.keys import Signer

SIGNER = Signer.from_key("0x" + "42" * 32)
OTHER = "0x" + "a1" * 20


def test_signed_binding_is_recorded_and_found(ledger):
    """Through JSON and back, the signature still verifies; the newest binding counts."""
    binding = sign_binding(SIGNER, "ada", 1, 1)
    record_binding(ledger, parse_binding(binding.document()))
    assert find_binding(ledger, "ada", 1) == binding
    with pytest.raises(BindingMissing):
        find_binding(ledger, "ada", 2)


@pytest.mark.parametrize(
    "change", [{"account": "eve"}, {"address": OTHER}, {"chain_id": 2}, {"sequence": 2}, {"signature": "0x00"}]
)
def test_any_changed_member_breaks_the_signature(ledger, change):
    """A signature is for one account, address, chain and sequence: it can be neither moved nor replayed."""
    binding = dataclasses.replace(sign_binding(SIGNER, "ada", 1, 1), **change)
    with pytest.raises(BindingInvalid, match="signature"):
        record_binding(ledger, binding)


def test_sequences_have_no_gaps_and_no_repeats(ledger):
    """The same binding again is nothing new; another of the same number, or a later one, is refused."""
    first = Binding("ada", OTHER, 1, 1)
    assert record_binding(ledger, first) == record_binding(ledger, first)
    for sequence in (1, 3):
        with pytest.raises(BindingInvalid, match="ada's next is 2"):
            record_binding(ledger, Binding("ada", SIGNER.address, 1, sequence))
    record_binding(ledger, Binding("ada", SIGNER.address, 1, 2))
    assert find_binding(ledger, "ada", 1).address == SIGNER.address


def test_whoever_signed_once_is_not_rebound_by_the_operator_alone(ledger):
    """After a signed binding, only a signed one follows."""
    record_binding(ledger, sign_binding(SIGNER, "ada", 1, 1))
    with pytest.raises(BindingInvalid, match="must sign this one too"):
        record_binding(ledger, Binding("ada", OTHER, 1, 2))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"account": "a b"}, "account"),
        ({"address": "0x12"}, "address"),
        ({"address": "0x" + "0" * 40}, "address"),
        ({"address": "0x" + "A1" * 20}, "address"),
        ({"chain_id": 0}, "chain_id"),
        ({"chain_id": 1.0}, "chain_id"),
        ({"sequence": True}, "sequence"),
        ({"type": "other"}, "type"),
        ({"more": 1}, "exactly"),
    ],
)
def test_malformed_documents_name_the_field(change, field):
    """Nothing is guessed or corrected."""
    document = Binding("ada", OTHER, 1, 1).document() | change
    with pytest.raises(BindingInvalid, match=field):
        parse_binding(document)
