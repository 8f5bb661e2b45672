"""The double-entry ledger: accounts, transfers, holds, documents (docs/formats/transfer.md)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from metering.canonical import digest, parse_canonical
from metering.config import MeteringConfig
from metering.postings import Hold, Postings, Transfer
from metering.pricebook import decode_price_book
from metering.status import Status
from metering.store import Connection, Store, open_store
from metering.terms import decode_terms

MICROTOKEN = "microtoken"
MICROTOKENS_PER_TOKEN = 1_000_000
AMOUNT_MAX = 2**62
FUNDING = "funding"  # where top-ups come from: its debits are the money that entered
TRANSFER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,255}\Z")
ACCOUNT_NAME = re.compile(r"[a-z][a-z-]{0,31}(:[A-Za-z0-9][A-Za-z0-9._:@-]{0,127})?\Z")
DOCUMENT_KIND = re.compile(r"[a-z][a-z_]{0,31}\Z")


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
    """One ledger, two units: nanos of the configured currency, and microtokens. Safe from any thread and process."""

    def __init__(self, store: Store, currency: str) -> None:
        self.store = store
        self.currency = currency

    @classmethod
    def open(cls, config: MeteringConfig) -> Ledger:
        """Open or create, applying migrations. SchemaUnknown when a newer release wrote it."""
        return cls(open_store(config), config.currency)

    def close(self) -> None:
        self.store.close()

    def open_account(self, name: str, unit: str, *, overdraft: bool) -> Status:
        """Create an account; EXISTS when it is there. `overdraft`: may its balance go below zero."""
        if unit not in (self.currency, MICROTOKEN):
            return Status.UNIT_UNKNOWN
        if not ACCOUNT_NAME.match(name):
            return Status.ACCOUNT_NAME_INVALID
        with self.store.write() as connection:
            postings = Postings(connection, now_us())
            account = postings.find(name, unit)
            if account is not None:
                return Status.EXISTS if account.overdraft == overdraft else Status.EXISTS_WITH_OTHER_BODY
            postings.open(name, unit, overdraft=overdraft)
            return Status.OK

    def open_wallet(self, tenant: str) -> Status:
        """Create the tenant's prepaid wallet `client:<tenant>` (may never be overdrawn); EXISTS when it is there."""
        return self.open_account(wallet(tenant), self.currency, overdraft=False)

    def transfer(self, transfer: Transfer) -> Status:
        """Move an amount between two existing accounts. The id makes it happen once: the same body again is EXISTS."""
        status = self._check_request(transfer)
        if not status.accepted:
            return status
        with self.store.write() as connection:
            postings = Postings(connection, now_us())
            status = self._transfer(connection, postings, transfer)
            postings.flush()
            return status

    def credit(self, transfer_id: str, tenant: str, amount_nanos: int) -> Status:
        """Top up a wallet from outside (opens it when new). First repays what the tenant owes, if anything."""
        transfer = Transfer(transfer_id, FUNDING, wallet(tenant), self.currency, amount_nanos, "credit")
        status = self._check_request(transfer)
        if not status.accepted:
            return status
        with self.store.write() as connection:
            postings = Postings(connection, now_us())
            postings.open(FUNDING, self.currency, overdraft=True)
            client = postings.open(wallet(tenant), self.currency, overdraft=False)
            status = self._transfer(connection, postings, transfer)
            owed = postings.find(receivable(tenant), self.currency)
            if status is Status.OK and owed is not None and owed.available < 0:
                amount = min(-owed.available, client.available)
                repay = Transfer(f"{transfer_id}/repay", client.name, owed.name, self.currency, amount, "repay")
                postings.post(repay, client, owed)
            postings.flush()
            return status

    def balance(self, tenant: str) -> Balance:
        """Of the tenant's wallet; zeros when it has none."""
        return self.account_balance(wallet(tenant), self.currency)

    def account_balance(self, name: str, unit: str) -> Balance:
        """Of any account; zeros when there is none."""
        with self.store.read() as connection:
            account = Postings(connection, 0).find(name, unit)
        return Balance(account.credits, account.debits, account.held) if account else Balance(0, 0, 0)

    def hold(self, hold_id: str, tenant: str, amount_nanos: int, expires_unix_us: int) -> Status:
        """Set aside the worst case of a request, in one atomic step. INSUFFICIENT_CREDIT is the client's 402.

        An amount of 0 is allowed (a free model still has a hold, so that requests in flight can be listed).
        Only a power cut may undo a hold: the request ends with it, what was metered is settled without it.
        """
        if not isinstance(hold_id, str) or not TRANSFER_ID.match(hold_id):
            return Status.ID_INVALID
        status = _check_amount(amount_nanos, low=0)
        if not status.accepted:
            return status
        if expires_unix_us <= now_us():
            return Status.EXPIRY_NOT_IN_FUTURE
        with self.store.write(durable=False) as connection:
            postings = Postings(connection, now_us())
            account = postings.find(wallet(tenant), self.currency)  # first: its lock orders concurrent replays
            found = postings.find_hold(hold_id)
            if found is not None:
                same = (found.tenant, found.amount_nanos) == (tenant, amount_nanos)
                return Status.EXISTS if same else Status.EXISTS_WITH_OTHER_BODY
            if account is None:
                return Status.DEBIT_ACCOUNT_UNKNOWN
            if account.available < amount_nanos:
                return Status.INSUFFICIENT_CREDIT
            postings.place(Hold(hold_id, tenant, account.id, amount_nanos, expires_unix_us, "pending"), account)
            postings.flush()
            return Status.OK

    def post(self, hold_id: str, transfer_id: str, amount_nanos: int, credit: str) -> Status:
        """Pay `amount_nanos` of a pending hold to account `credit` and release the rest."""
        if not isinstance(transfer_id, str) or not TRANSFER_ID.match(transfer_id):
            return Status.ID_INVALID
        status = _check_amount(amount_nanos, low=1)
        if not status.accepted:
            return status
        with self.store.write() as connection:
            postings = Postings(connection, now_us())
            hold = postings.find_hold(hold_id)
            if hold is None:
                return Status.HOLD_UNKNOWN
            transfer = Transfer(transfer_id, wallet(hold.tenant), credit, self.currency, amount_nanos, "post")
            known = self._replayed(connection, transfer)
            if known is not None:
                return known
            if hold.state != "pending":
                return ENDED_HOLD[hold.state]
            debit, receiver = postings.find(transfer.debit, self.currency), postings.find(credit, self.currency)
            if receiver is None or debit is None:
                return self._unknown(connection, credit, "credit")
            if amount_nanos > hold.amount_nanos:
                return Status.POST_EXCEEDS_HOLD
            postings.release(hold, "posted", amount_nanos)
            postings.post(transfer, debit, receiver)
            postings.flush()
            return Status.OK

    def void(self, hold_id: str) -> Status:
        """Release a hold of a request that generated nothing and will have no usage event."""
        with self.store.write() as connection:
            postings = Postings(connection, now_us())
            hold = postings.find_hold(hold_id)
            if hold is None:
                return Status.HOLD_UNKNOWN
            if hold.state == "voided":
                return Status.EXISTS
            if hold.state != "pending":
                return ENDED_HOLD[hold.state]
            postings.release(hold, "voided")
            postings.flush()
            return Status.OK

    def expire_holds(self, at_us: int) -> list[str]:
        """Release the holds whose time is up; their ids. Until this is called an overdue hold still stands."""
        with self.store.write() as connection:
            postings = Postings(connection, at_us)
            rows = connection.execute(
                "SELECT id, tenant, account, amount, expires_us, state FROM holds"
                f" WHERE state = 'pending' AND expires_us <= ? ORDER BY expires_us{connection.row_lock}",
                (at_us,),
            )
            for row in rows:
                postings.release(Hold(*row), "expired")
            postings.flush()
        return [row[0] for row in rows]

    def open_holds(self) -> list[OpenHold]:
        """Holds neither posted, voided nor expired: requests in flight, or whose event is not settled yet."""
        with self.store.read() as connection:
            rows = connection.execute(
                "SELECT id, tenant, amount, expires_us FROM holds WHERE state = 'pending' ORDER BY id"
            )
        return [OpenHold(*row) for row in rows]

    def settled(self, request_id: str) -> bool:
        """True when the usage event of this request is in the ledger."""
        with self.store.read() as connection:
            return bool(connection.execute("SELECT 1 FROM usage WHERE id = ?", (request_id,)))

    def put_document(self, kind: str, body: bytes) -> str:
        """Store a canonical document under its digest and submit it to the log: terms, price_book, contribution, ...

        Returns the digest; the same document again is no new entry. CanonicalError when `body` is not canonical,
        TermsInvalid or PriceBookInvalid for a bad document of those kinds.
        """
        if not DOCUMENT_KIND.match(kind) or kind == "usage":
            raise ValueError(f"no document kind {kind!r}")
        {"terms": decode_terms, "price_book": decode_price_book}.get(kind, parse_canonical)(body)
        name = digest(body)
        with self.store.write() as connection:
            new = connection.execute(
                "INSERT INTO documents (digest, kind, body) VALUES (?, ?, ?)"
                " ON CONFLICT (digest) DO NOTHING RETURNING digest",
                (name, kind, body),
            )
            if new:
                connection.execute("INSERT INTO log_inbox (kind, digest) VALUES (?, ?)", (kind, name))
        return name

    def document(self, digest: str) -> bytes | None:
        """The document of that digest, if it was ever put."""
        with self.store.read() as connection:
            rows = connection.execute("SELECT body FROM documents WHERE digest = ?", (digest,))
        return bytes(rows[0][0]) if rows else None

    def _check_request(self, transfer: Transfer) -> Status:
        """What can be said without the database, in the order of Status."""
        if not isinstance(transfer.id, str) or not TRANSFER_ID.match(transfer.id):
            return Status.ID_INVALID
        status = _check_amount(transfer.amount, low=1)
        if not status.accepted:
            return status
        if transfer.unit not in (self.currency, MICROTOKEN):
            return Status.UNIT_UNKNOWN
        if not ACCOUNT_NAME.match(transfer.debit) or not ACCOUNT_NAME.match(transfer.credit):
            return Status.ACCOUNT_NAME_INVALID
        return Status.ACCOUNTS_SAME if transfer.debit == transfer.credit else Status.OK

    def _transfer(self, connection: Connection, postings: Postings, transfer: Transfer) -> Status:
        for name in sorted((transfer.debit, transfer.credit)):  # one order of locks, so that none wait for each other
            postings.find(name, transfer.unit)
        debit, credit = postings.find(transfer.debit, transfer.unit), postings.find(transfer.credit, transfer.unit)
        known = self._replayed(connection, transfer)
        if known is not None:
            return known
        if debit is None:
            return self._unknown(connection, transfer.debit, "debit")
        if credit is None:
            return self._unknown(connection, transfer.credit, "credit")
        if not debit.overdraft and debit.available < transfer.amount:
            return Status.INSUFFICIENT_CREDIT
        if not postings.fits(debit, transfer.amount) or not postings.fits(credit, transfer.amount):
            return Status.BALANCE_OVERFLOW
        postings.post(transfer, debit, credit)
        return Status.OK

    def _replayed(self, connection: Connection, transfer: Transfer) -> Status | None:
        rows = connection.execute(
            "SELECT d.name, c.name, d.unit, t.amount, t.code FROM transfers t"
            " JOIN accounts d ON d.id = t.debit JOIN accounts c ON c.id = t.credit WHERE t.id = ?",
            (transfer.id,),
        )
        if not rows:
            return None
        same = rows[0] == (transfer.debit, transfer.credit, transfer.unit, transfer.amount, transfer.code)
        return Status.EXISTS if same else Status.EXISTS_WITH_OTHER_BODY

    def _unknown(self, connection: Connection, name: str, side: str) -> Status:
        other_unit = bool(connection.execute("SELECT 1 FROM accounts WHERE name = ?", (name,)))
        return Status(f"{side}_account_{'other_unit' if other_unit else 'unknown'}")


ENDED_HOLD = {
    "posted": Status.HOLD_ALREADY_POSTED,
    "voided": Status.HOLD_ALREADY_VOIDED,
    "expired": Status.HOLD_EXPIRED,
}


def wallet(tenant: str) -> str:
    """The account of a tenant's prepaid credit."""
    return f"client:{tenant}"


def receivable(tenant: str) -> str:
    """The account of what a tenant used beyond its credit (a hold that had expired): below zero while it owes."""
    return f"receivable:{tenant}"


def now_us() -> int:
    return time.time_ns() // 1000


def _check_amount(amount: object, low: int) -> Status:
    if type(amount) is not int:
        return Status.AMOUNT_NOT_INTEGER
    if amount < low:
        return Status.AMOUNT_NOT_POSITIVE
    return Status.AMOUNT_TOO_LARGE if amount > AMOUNT_MAX else Status.OK
