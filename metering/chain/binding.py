"""Which address is paid for whom (docs/formats/chain.md): signed by the address's key, or recorded by the operator.

The newest binding of an account counts for what it earns from then on; what was published before stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metering.chain import documents
from metering.chain.address import parse_address
from metering.chain.errors import BindingInvalid, BindingMissing, KeyInvalid
from metering.chain.keys import Signer, recover_signer
from metering.event import NAME
from metering.ledger import Ledger
from metering.store import Connection

KIND = "payout_binding"
MEMBERS = {"type", "account", "address", "chain_id", "sequence", "signature"}


@dataclass(frozen=True, slots=True)
class Binding:
    """`account` (a person's name in the ledger) is paid at `address`; `signature` None: the operator's word for it.

    `sequence` counts an account's bindings on a chain from 1: an old signature cannot be replayed. Construction raises
    BindingInvalid naming the field.
    """

    account: str
    address: str
    chain_id: int
    sequence: int
    signature: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.account, str) or not NAME.match(self.account):
            raise BindingInvalid(f"account: {self.account!r} is not a name")
        try:
            if parse_address(self.address) != self.address:
                raise ValueError(f"{self.address} is not in lower case")
        except ValueError as error:
            raise BindingInvalid(f"address: {error}") from error
        for name in ("chain_id", "sequence"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise BindingInvalid(f"{name}: {value!r} is not a positive integer")

    def text(self) -> str:
        """What the address signs (EIP-191)."""
        return (
            "OpenLedger payout binding\n"
            f"account: {self.account}\naddress: {self.address}\nchain: {self.chain_id}\nsequence: {self.sequence}\n"
        )

    def document(self) -> dict[str, Any]:
        return {"type": KIND, **{name: getattr(self, name) for name in self.__slots__}}

    def verify(self) -> None:
        """BindingInvalid when there is a signature and it is not the address's."""
        if self.signature is None:
            return
        try:
            signer = recover_signer(self.text(), str(self.signature))
        except KeyInvalid as error:
            raise BindingInvalid(f"signature: {error}") from error
        if signer != self.address:
            raise BindingInvalid(f"signature: by {signer}, not by {self.address}")


def sign_binding(signer: Signer, account: str, chain_id: int, sequence: int) -> Binding:
    """A binding of `account` to the signer's own address."""
    unsigned = Binding(account, signer.address, chain_id, sequence)
    return Binding(account, signer.address, chain_id, sequence, signer.sign_text(unsigned.text()))


def parse_binding(document: Any) -> Binding:
    """The binding of a document; BindingInvalid when it is none. The signature is not checked (see Binding.verify)."""
    if not isinstance(document, dict) or document.keys() != MEMBERS or document["type"] != KIND:
        raise BindingInvalid(f"not an object of type {KIND} with exactly {', '.join(sorted(MEMBERS))}")
    return Binding(**{name: value for name, value in document.items() if name != "type"})


def record_binding(ledger: Ledger, binding: Binding) -> str:
    """Store it as a log entry; its digest. BindingInvalid for a bad signature or a sequence that is not the next.

    An account whose last binding is signed is rebound only by a signature, of whichever new address.
    """
    binding.verify()
    with ledger.store.write() as connection:
        known = bindings(connection, binding.chain_id).get(binding.account)
        if known != binding:
            expected = known.sequence + 1 if known else 1
            if binding.sequence != expected:
                raise BindingInvalid(f"sequence: {binding.sequence}, but {binding.account}'s next is {expected}")
            if known and known.signature and not binding.signature:
                raise BindingInvalid(f"signature: {binding.account} has signed before and must sign this one too")
        return documents.put(connection, KIND, binding.document())


def bindings(connection: Connection, chain_id: int) -> dict[str, Binding]:
    """The newest binding of every account on a chain."""
    newest: dict[str, Binding] = {}
    for _, document in documents.all_of(connection, KIND):
        binding = parse_binding(document)
        known = newest.get(binding.account)
        if binding.chain_id == chain_id and (known is None or binding.sequence > known.sequence):
            newest[binding.account] = binding
    return newest


def find_binding(ledger: Ledger, account: str, chain_id: int) -> Binding:
    """BindingMissing when the account has none."""
    with ledger.store.read() as connection:
        found = bindings(connection, chain_id).get(account)
    if found is None:
        raise BindingMissing(f"no payout address is recorded for {account} on chain {chain_id}")
    return found


def next_sequence(ledger: Ledger, account: str, chain_id: int) -> int:
    """The sequence that the account's next binding must have."""
    with ledger.store.read() as connection:
        known = bindings(connection, chain_id).get(account)
    return known.sequence + 1 if known else 1
