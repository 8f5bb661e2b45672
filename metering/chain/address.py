"""EVM addresses: lower-case 0x hex in documents and databases."""

from __future__ import annotations

import re

from eth_utils import is_checksum_address

ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")
ZERO = "0x" + "0" * 40


def parse_address(text: object) -> str:
    """Lower-case form; ValueError when it is no address, is zero, or mixes cases in other than the EIP-55 way."""
    if not isinstance(text, str) or not ADDRESS.match(text):
        raise ValueError(f"{text!r} is not 0x and 40 hex digits")
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and not is_checksum_address(text):
        raise ValueError(f"{text} has a wrong EIP-55 checksum: a digit was mistyped")
    if text.lower() == ZERO:
        raise ValueError("the zero address cannot be paid")
    return text.lower()
