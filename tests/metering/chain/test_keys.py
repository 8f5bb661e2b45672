"""Keys: where they come from, and that they do not leak."""

from __future__ import annotations

import json

import pytest
from eth_account import Account

from metering.chain.errors import KeyInvalid, KeyMissing
from metering.chain.keys import Signer, recover_signer

KEY = "0x" + "42" * 32
ADDRESS = Account.from_key(KEY).address.lower()


def test_key_comes_from_the_environment_or_a_named_keystore(tmp_path):
    """A keystore wins over the variable; with and without 0x is the same key."""
    path = tmp_path / "keystore.json"
    path.write_text(json.dumps(Account.encrypt("0x" + "43" * 32, "pass", kdf="pbkdf2", iterations=2)))
    assert Signer.load({"OPENLEDGER_CHAIN_KEY": KEY[2:] + "\n"}).address == ADDRESS
    assert Signer.load({"OPENLEDGER_CHAIN_KEY": KEY}, path, "pass").address != ADDRESS
    assert Signer.load({"OPENLEDGER_CHAIN_PASSWORD": "pass"}, path).address != ADDRESS


def test_missing_and_wrong_keys_have_names(tmp_path):
    """No key, no password, no keystore, wrong password, wrong length."""
    path = tmp_path / "keystore.json"
    path.write_text(json.dumps(Account.encrypt(KEY, "pass", kdf="pbkdf2", iterations=2)))
    with pytest.raises(KeyMissing, match="OPENLEDGER_CHAIN_KEY"):
        Signer.load({})
    with pytest.raises(KeyMissing, match="OPENLEDGER_CHAIN_PASSWORD"):
        Signer.load({}, path)
    for environment, keystore, password in (
        ({"OPENLEDGER_CHAIN_KEY": KEY[:-2]}, None, None),
        ({"OPENLEDGER_CHAIN_KEY": "0x" + "00" * 32}, None, None),
        ({}, path, "other"),
        ({}, tmp_path / "none", "pass"),
    ):
        with pytest.raises(KeyInvalid) as caught:
            Signer.load(environment, keystore, password)
        assert caught.value.__cause__ is None
        assert "4242" not in str(caught.value)


def test_signer_shows_its_address_only():
    """repr and str are safe to log."""
    signer = Signer.from_key(KEY)
    assert repr(signer) == str(signer) == f"Signer({ADDRESS})"


def test_signature_names_its_signer():
    """Recovering is the inverse of signing; what is no signature is refused by name."""
    assert recover_signer("text", Signer.from_key(KEY).sign_text("text")) == ADDRESS
    with pytest.raises(KeyInvalid):
        recover_signer("text", "0x1234")
