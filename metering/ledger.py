"""The double-entry ledger: accounts, transfers, holds (docs/formats/transfer.md)."""

from __future__ import annotations

from dataclasses import dataclass

from metering.config import MeteringConfig
from metering.status import Status

MICROTOKEN = "microtoken"
MICROTOKENS_PER_TOKEN = 1_000_000


@dataclass(frozen=True, slots=True)
class Balance:
    """Of one account, in its unit: available = credits - debits - held."""

    credits: int
    debits: int
    held: int

    @property
    def available(self) -> int:
        return self.credits - self.debits - self.held


@dataclass(frozen=True, slots=True)
class OpenHold:
    id: str
    tenant: str
    amount_nanos: int
    expires_unix_us: int


class Ledger:
    """One ledger, two units: nanos of the configured currency, and microtokens. Safe to use from any thread and process."""

    @classmethod
    def open(cls, config: MeteringConfig) -> Ledger:
        """Open or create, applying migrations. SchemaUnknown when a newer release wrote it."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def open_wallet(self, tenant: str) -> Status:
        """Create the tenant's prepaid wallet `client:<tenant>` (may never be overdrawn); EXISTS when it is there."""
        raise NotImplementedError

    def credit(self, transfer_id: str, tenant: str, amount_nanos: int) -> Status:
        """Top up a wallet from outside (opens it when new). First repays what the tenant owes, if anything."""
        raise NotImplementedError

    def balance(self, tenant: str) -> Balance:
        """Of the tenant's wallet; zeros when it has none."""
        raise NotImplementedError

    def hold(self, hold_id: str, tenant: str, amount_nanos: int, expires_unix_us: int) -> Status:
        """Set aside the worst case of a request, in one atomic step. INSUFFICIENT_CREDIT is the client's 402.

        An amount of 0 is allowed (a free model still has a hold, so that requests in flight can be listed).
        """
        raise NotImplementedError

    def void(self, hold_id: str) -> Status:
        """Release a hold of a request that generated nothing and will have no usage event."""
        raise NotImplementedError

    def open_holds(self) -> list[OpenHold]:
        """Holds neither posted, voided nor expired: requests in flight, or whose event is not settled yet."""
        raise NotImplementedError

    def settled(self, request_id: str) -> bool:
        """True when the usage event of this request is in the ledger."""
        raise NotImplementedError

    def put_document(self, kind: str, body: bytes) -> str:
        """Store a canonical document under its digest and submit it to the log: terms, price_book, contribution, ...

        Returns the digest; the same document again is no new entry. CanonicalError when `body` is not canonical,
        TermsInvalid or PriceBookInvalid for a bad document of those kinds.
        """
        raise NotImplementedError

    def document(self, digest: str) -> bytes | None:
        raise NotImplementedError
