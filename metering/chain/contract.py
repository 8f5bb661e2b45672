"""The contracts' ABIs and bytecode (contracts/artifacts), and calls encoded with them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import (
    abi_to_signature,
    function_signature_to_4byte_selector,
    get_abi_input_types,
    get_abi_output_types,
)

from metering.chain.errors import WrongChain

ARTIFACTS = Path(__file__).parent / "contracts" / "artifacts"


class Contract:
    """One contract's interface."""

    def __init__(self, name: str) -> None:
        artifact = json.loads((ARTIFACTS / f"{name}.json").read_text())
        self.name = name
        self.bytecode = bytes.fromhex(artifact["bytecode"].removeprefix("0x"))
        self._constructor = next((entry for entry in artifact["abi"] if entry["type"] == "constructor"), None)
        self._functions = {entry["name"]: entry for entry in artifact["abi"] if entry["type"] == "function"}
        self.errors = {_selector(entry): entry for entry in artifact["abi"] if entry["type"] == "error"}

    def creation(self, *arguments: Any) -> bytes:
        """Data of the transaction that creates it."""
        if self._constructor is None:
            return self.bytecode
        return self.bytecode + encode(get_abi_input_types(self._constructor), arguments)

    def call_data(self, function: str, *arguments: Any) -> bytes:
        """Selector and encoded arguments."""
        entry = self._functions[function]
        return _selector(entry) + encode(get_abi_input_types(entry), arguments)

    def result(self, function: str, data: bytes) -> Any:
        """The one value that a function returns, addresses in lower case; WrongChain when the data is of another."""
        try:
            (value,) = decode(get_abi_output_types(self._functions[function]), data)
        except DecodingError as error:
            raise WrongChain(f"the answer is not one of {self.name}.{function}") from error
        return value


@cache
def contract(name: str) -> Contract:
    """The interface of CheckpointAnchor, DatanetRegistry, PayoutDistributor or TestToken."""
    return Contract(name)


def revert_reason(data: bytes) -> tuple[str, str]:
    """Name and arguments of the error in a revert's data: ours, OpenZeppelin's, or require's text."""
    if data[:4] == bytes.fromhex("08c379a0"):
        return "Error", decode(["string"], data[4:])[0]
    for name in ("PayoutDistributor", "CheckpointAnchor", "DatanetRegistry", "TestToken"):
        entry = contract(name).errors.get(data[:4])
        if entry is not None:
            values = decode(get_abi_input_types(entry), data[4:])
            return entry["name"], ", ".join(
                f"{field['name']} {'0x' + value.hex() if isinstance(value, bytes) else value}"
                for field, value in zip(entry["inputs"], values, strict=True)
            )
    return "reverted", "0x" + data.hex()


def _selector(entry: Any) -> bytes:
    return function_signature_to_4byte_selector(abi_to_signature(entry))
