"""Disputes: a client contests a receipt, its amount is frozen, the operator gives it back or releases it."""

from __future__ import annotations

from typing import Any

from metering.billing_profile import read_profile
from metering.billing_record import ISSUER, load_document, read_states, record_state, store_document
from metering.billing_status import BillingStatus
from metering.canonical import digest, parse_canonical
from metering.credit_note import issue_credit_note
from metering.errors import UsageUnknown
from metering.event import parse_rfc3339, rfc3339
from metering.freeze import freeze, frozen, release
from metering.invoice_lifecycle import DAY_US, check_reason
from metering.invoice_payment import mark_paid
from metering.ledger import Ledger, now_us
from metering.postings import Postings
from metering.store import Connection

DISPUTE_TYPE = "org.openledger.dispute.v1"
OUTCOME_TYPE = "org.openledger.dispute-outcome.v1"


def open_dispute(
    ledger: Ledger, tenant: str, request_id: str, reason: str, issuer: str = ISSUER, at_us: int | None = None
) -> dict[str, Any]:
    """Freeze the amount of one's own settled request; a request can be disputed once.

    Refuses `receipt_of_other_tenant`, `dispute_exists`, `nothing_to_dispute` (it cost nothing), `dispute_too_late` (it
    was settled longer ago than the issuer's `dispute_days`), `window_open` (it is not paid out yet: again once the
    settlement window is closed), `reason_missing`. UsageUnknown for no such receipt. `at_us`: now by default.
    """
    check_reason(reason)
    with ledger.store.write() as connection:
        rows = connection.execute(
            "SELECT tenant, window_id, terms, amount_nanos, body FROM usage WHERE id = ?" + connection.row_lock,
            (request_id,),
        )
        if not rows:
            raise UsageUnknown(f"no settled usage {request_id}")
        owner, window, terms, amount_nanos, body = rows[0]
        if owner != tenant:
            raise BillingStatus.RECEIPT_OF_OTHER_TENANT.refuse(request_id)
        dispute_id = f"dsp_{request_id.removeprefix('req_')}"
        if connection.execute("SELECT 1 FROM disputes WHERE id = ?", (dispute_id,)):
            raise BillingStatus.DISPUTE_EXISTS.refuse(f"{request_id} is disputed as {dispute_id}")
        if not amount_nanos:
            raise BillingStatus.NOTHING_TO_DISPUTE.refuse(f"{request_id} cost nothing")
        time_us = now_us() if at_us is None else at_us
        settled = parse_canonical(bytes(body))["settlement"]["time"]
        days = read_profile(connection, issuer).dispute_days
        if time_us > parse_rfc3339(settled) + days * DAY_US:
            raise BillingStatus.DISPUTE_TOO_LATE.refuse(f"{request_id} was settled on {settled}, {days} days are given")
        postings = Postings(connection, time_us)
        moves = freeze(connection, postings, ledger.currency, dispute_id, (window, terms, amount_nanos))
        postings.flush()
        document = {
            "type": DISPUTE_TYPE,
            "id": dispute_id,
            "request_id": request_id,
            "receipt_digest": digest(bytes(body)),
            "tenant": tenant,
            "reason": reason,
            "opened": rfc3339(time_us),
            "settled": settled,
            "currency": ledger.currency,
            "amount_nanos": amount_nanos,
            "transfers": moves,
        }
        connection.execute(
            "INSERT INTO disputes (id, request_id, tenant, amount_nanos, state, digest) VALUES (?, ?, ?, ?, 'open', ?)",
            (dispute_id, request_id, tenant, amount_nanos, store_document(connection, "dispute", document)),
        )
        record_state(connection, dispute_id, "open", time_us, reason)
        return _view(connection, dispute_id)


def resolve_dispute(
    ledger: Ledger,
    dispute_id: str,
    *,
    uphold: bool,
    reason: str,
    amount_nanos: int | None = None,
    issuer: str = ISSUER,
) -> dict[str, Any]:
    """Uphold: the frozen amount goes to the client, with a credit note. Reject: it goes back to those who gave it.

    `amount_nanos`: upheld for this part only; the rest goes back. Refuses `dispute_unknown`, `dispute_resolved`,
    `amount_invalid`, `amount_exceeds_dispute`, `credit_exceeds_invoice`, `reason_missing`.
    """
    check_reason(reason)
    if amount_nanos is not None and (not uphold or type(amount_nanos) is not int or amount_nanos <= 0):
        raise BillingStatus.AMOUNT_INVALID.refuse("what is upheld in part is a positive integer of nanos")
    state = "upheld" if uphold else "rejected"
    with ledger.store.write() as connection:
        rows = connection.execute(
            "SELECT state, digest FROM disputes WHERE id = ?" + connection.row_lock, (dispute_id,)
        )
        if not rows:
            raise BillingStatus.DISPUTE_UNKNOWN.refuse(dispute_id)
        if rows[0][0] != "open":
            raise BillingStatus.DISPUTE_RESOLVED.refuse(f"{dispute_id} was {rows[0][0]}")
        opened = load_document(connection, rows[0][1])
        tenant = opened["tenant"]
        time_us = now_us()
        postings = Postings(connection, time_us)
        upheld_nanos = (opened["amount_nanos"] if amount_nanos is None else amount_nanos) if uphold else 0
        rest_nanos = opened["amount_nanos"] - upheld_nanos
        if rest_nanos < 0:
            raise BillingStatus.AMOUNT_EXCEEDS_DISPUTE.refuse(f"{opened['amount_nanos']} nanos are frozen")
        note, moves = None, release(postings, ledger.currency, dispute_id, opened["transfers"], rest_nanos)
        if upheld_nanos:
            note = issue_credit_note(
                connection, postings, ledger.currency, issuer, frozen(dispute_id), tenant,
                opened["settled"][:7], upheld_nanos, reason, opened["request_id"],
            )  # fmt: skip
            moves = [*note["transfers"], *moves]
        postings.flush()
        outcome = {
            "type": OUTCOME_TYPE,
            "dispute": rows[0][1],
            "outcome": state,
            "upheld_nanos": upheld_nanos,
            "reason": reason,
            "resolved": rfc3339(time_us),
            "credit_note": note["number"] if note else None,
            "transfers": moves,
        }
        store_document(connection, "dispute_outcome", outcome)
        connection.execute(
            "UPDATE disputes SET state = ?, credit_note = ? WHERE id = ?", (state, outcome["credit_note"], dispute_id)
        )
        record_state(connection, dispute_id, state, time_us, reason)
        mark_paid(connection, ledger.currency, tenant, time_us)
        return _view(connection, dispute_id)


def get_dispute(ledger: Ledger, dispute_id: str) -> dict[str, Any]:
    """A dispute as it stands, with its history. Refuses `dispute_unknown`."""
    with ledger.store.read() as connection:
        return _view(connection, dispute_id)


def list_disputes(ledger: Ledger, tenant: str | None = None, state: str | None = None) -> list[dict[str, Any]]:
    """Disputes of one tenant or of all, in one state or in any, in the order of their requests."""
    names = ("id", "request_id", "tenant", "amount_nanos", "state", "credit_note")
    with ledger.store.read() as connection:
        rows = connection.execute(
            f"SELECT {', '.join(names)} FROM disputes WHERE (? = '' OR tenant = ?) AND (? = '' OR state = ?)"
            " ORDER BY id",
            (tenant or "", tenant or "", state or "", state or ""),
        )
    return [{"object": "dispute", "currency": ledger.currency, **dict(zip(names, row, strict=True))} for row in rows]


def _view(connection: Connection, dispute_id: str) -> dict[str, Any]:
    rows = connection.execute("SELECT state, digest, credit_note FROM disputes WHERE id = ?", (dispute_id,))
    if not rows:
        raise BillingStatus.DISPUTE_UNKNOWN.refuse(dispute_id)
    state, name, credit_note = rows[0]
    return {
        "object": "dispute",
        **load_document(connection, name),
        "digest": name,
        "state": state,
        "credit_note": credit_note,
        "history": read_states(connection, dispute_id),
    }
