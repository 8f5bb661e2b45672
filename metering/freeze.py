"""Freezing a request's money: taken back from exactly those who were paid for it, in exactly their proportion."""

from __future__ import annotations

from typing import Any

from metering.billing_status import BillingStatus
from metering.invoice_payment import CORRECTIONS
from metering.postings import Postings, Transfer
from metering.shares import largest_remainder
from metering.store import Connection


def frozen(dispute_id: str) -> str:
    """The account where a disputed amount waits."""
    return f"frozen:{dispute_id}"


def freeze(
    connection: Connection, postings: Postings, currency: str, dispute_id: str, usage: tuple[int, str, int]
) -> list[dict[str, Any]]:
    """Move the amount of a request (`usage`: window, terms, nanos) to its frozen account; the transfers as JSON.

    Each payee p of the closed window gives back amount * paid_p / sum paid, by largest remainder; what a payee has no
    longer (withdrawn, or paid on chain) the issuer advances from `corrections`. Refuses `window_open`.
    """
    window, terms, amount_nanos = usage
    closed = connection.execute("SELECT closed_us FROM windows WHERE id = ?", (window,))
    if not closed or closed[0][0] is None:
        raise BillingStatus.WINDOW_OPEN.refuse(f"window {window} is not paid yet")
    paid = dict(
        connection.execute(
            "SELECT a.name, t.amount FROM transfers t JOIN accounts a ON a.id = t.credit"
            " WHERE t.window_id = ? AND t.terms = ? AND a.unit = ? ORDER BY a.name",
            (window, terms, currency),
        )
    )
    receiver = postings.open(frozen(dispute_id), currency, overdraft=False)
    advanced = 0
    moves = []
    for name, share in largest_remainder(amount_nanos, paid).items():
        payee = postings.open(name, currency, overdraft=False)
        part = min(share, max(0, payee.available))
        advanced += share - part
        if part:
            transfer = Transfer(f"{dispute_id}/freeze/{name}", name, receiver.name, currency, part, "freeze")
            postings.post(transfer, payee, receiver)
            moves.append(transfer)
    if advanced:
        issuer = postings.open(CORRECTIONS, currency, overdraft=True)
        transfer = Transfer(
            f"{dispute_id}/freeze/{CORRECTIONS}", CORRECTIONS, receiver.name, currency, advanced, "freeze"
        )
        postings.post(transfer, issuer, receiver)
        moves.append(transfer)
    return [as_json(transfer) for transfer in moves]


def release(
    postings: Postings, currency: str, dispute_id: str, moves: list[dict[str, Any]], amount_nanos: int
) -> list[dict[str, Any]]:
    """Undo `freeze` for an amount: each part of it goes back where it came from; the transfers as JSON.

    Payer p of the frozen parts gets amount * part_p / sum part, by largest remainder.
    """
    debit = postings.open(frozen(dispute_id), currency, overdraft=False)
    back = []
    for name, part in largest_remainder(amount_nanos, {move["debit"]: move["amount"] for move in moves}).items():
        if not part:
            continue
        payee = postings.open(name, currency, overdraft=False)
        identifier = f"{dispute_id}/release/{payee.name}"
        transfer = Transfer(identifier, debit.name, payee.name, currency, part, "release")
        postings.post(transfer, debit, payee)
        back.append(transfer)
    return [as_json(transfer) for transfer in back]


def as_json(transfer: Transfer) -> dict[str, Any]:
    return {name: getattr(transfer, name) for name in ("id", "debit", "credit", "amount", "code")}
