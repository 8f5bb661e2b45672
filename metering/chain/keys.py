"""Signing keys: from the environment or from a keystore file the user names, and nowhere else.

The key stays inside the signer. It is never written, printed or part of an exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from metering.chain.errors import KeyInvalid, KeyMissing

KEY_VARIABLE = "OPENLEDGER_CHAIN_KEY"  # 64 hex digits, with or without 0x
PASSWORD_VARIABLE = "OPENLEDGER_CHAIN_PASSWORD"  # of the keystore


class Signer:
    """One secp256k1 key."""

    __slots__ = ("_account", "address")

    def __init__(self, account: LocalAccount) -> None:
        self._account = account
        self.address: str = account.address.lower()

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    def sign_transaction(self, fields: Mapping[str, Any]) -> tuple[str, bytes]:
        """Transaction hash (0x hex) and the raw signed bytes."""
        signed = self._account.sign_transaction(dict(fields))
        return "0x" + bytes(signed.hash).hex(), bytes(signed.raw_transaction)

    def sign_text(self, text: str) -> str:
        """EIP-191 personal_sign of `text`, 0x hex."""
        return "0x" + bytes(self._account.sign_message(encode_defunct(text=text)).signature).hex()

    @classmethod
    def from_key(cls, key: str) -> Signer:
        """KeyInvalid, without the key's text, when it is none."""
        try:
            return cls(Account.from_key(key.strip()))
        except Exception:  # whatever the library finds wrong, its message may quote the key
            raise KeyInvalid("not a private key of 64 hex digits") from None

    @classmethod
    def from_keystore(cls, path: Path, password: str) -> Signer:
        """The key of a Web3 Secret Storage (V3) file; KeyInvalid for another file or password."""
        try:
            keystore = json.loads(path.read_text())
        except (OSError, ValueError):
            raise KeyInvalid(f"{path} is not a readable keystore file") from None
        try:
            return cls(Account.from_key(Account.decrypt(keystore, password)))
        except Exception:
            raise KeyInvalid(f"{path} is not a V3 keystore, or the password is wrong") from None

    @classmethod
    def load(cls, environment: Mapping[str, str], keystore: Path | None = None, password: str | None = None) -> Signer:
        """The named keystore (password: the argument or OPENLEDGER_CHAIN_PASSWORD), else OPENLEDGER_CHAIN_KEY."""
        if keystore is not None:
            secret = password if password is not None else environment.get(PASSWORD_VARIABLE)
            if secret is None:
                raise KeyMissing(f"the keystore's password is expected in {PASSWORD_VARIABLE}")
            return cls.from_keystore(keystore, secret)
        if not environment.get(KEY_VARIABLE):
            raise KeyMissing(f"no signing key: set {KEY_VARIABLE} or name a keystore file")
        return cls.from_key(environment[KEY_VARIABLE])


def recover_signer(text: str, signature: str) -> str:
    """Lower-case address that signed `text` (EIP-191); KeyInvalid for what is no signature."""
    try:
        return Account.recover_message(encode_defunct(text=text), signature=signature).lower()
    except Exception:
        raise KeyInvalid("not an EIP-191 signature") from None
