"""Statements that can be checked: the windows behind a person's earnings, and the receipts in the log behind them."""

from __future__ import annotations

from typing import Any

from metering import merkle
from metering.canonical import canonical_bytes, digest, parse_canonical, parse_strict
from metering.errors import CanonicalError, DocumentInvalid, NoteInvalid, ProofInvalid, StatementInvalid
from metering.ledger import MICROTOKEN, Ledger
from metering.log import LogTree, leaf_bytes, read_checkpoint
from metering.note import NoteVerifier, decode_base64, encode_base64, parse_checkpoint, split_note
from metering.period import Period, parse_period
from metering.receipts_root import usage_root
from metering.statement import ROLES, build_statement
from metering.store import Connection
from metering.terms import decode_terms
from metering.windows import TermsTotals, payouts, read_totals

PROOF_TYPE = "org.openledger.statement-proof.v1"
RECEIPTS_MAX = 1000  # inclusion proofs in one document; the root still covers all receipts of each window


def build_statement_proof(ledger: Ledger, account: str, period: str | None = None) -> bytes:
    """Canonical bytes of a statement with what proves its paid part, under the newest checkpoint.

    For each closed window and terms that paid the account: the window's totals and scores, the terms, its transfers to
    the account, the RFC 6962 root over its receipts' leaves, and the leaves with inclusion proofs (the first 1,000 in
    all). PeriodInvalid for a bad period, NotIncluded while the log is empty.
    """
    span = parse_period(period) if period else None
    statement = build_statement(ledger, account, period)
    with ledger.store.read() as connection:
        note = read_checkpoint(connection)
        size = parse_checkpoint(split_note(note)[0]).size
        tree = LogTree(connection)
        left = RECEIPTS_MAX
        windows = []
        for window, terms, transfers in _paid(connection, account, span):
            receipts = _receipts(connection, window, terms)
            shown = receipts[:left]
            left -= len(shown)
            totals = read_totals(connection, window)[terms]
            windows.append(
                {
                    "window": window,
                    "terms": _terms(connection, terms),
                    "amount_nanos": totals.amount_nanos,
                    "microtokens": totals.microtokens,
                    "scores": dict(totals.scores),
                    "transfers": transfers,
                    "receipts_count": len(receipts),
                    "receipts_root": encode_base64(usage_root([name for _, name in receipts])),
                    "receipts": [
                        {
                            "leaf": index,
                            "digest": name,
                            "path": [encode_base64(node) for node in merkle.inclusion_proof(tree, index, size)],
                        }
                        for index, name in shown
                    ],
                }
            )
    return canonical_bytes({"type": PROOF_TYPE, "statement": statement, "checkpoint": note, "windows": windows})


def verify_statement_proof(data: bytes, public_key: str) -> dict[str, Any]:
    """Check a proof offline; the statement in it. StatementInvalid names the step that failed, in this order:

    `format`, `checkpoint` (signed by the log), `inclusion` (each receipt is in the log), `receipts` (a complete list
    has its root), `payout` (each transfer is what the formula gives), `terms` (it was paid under these), `lines` (each
    says what the transfers to its role under its terms add up to), `totals`.
    """
    try:
        proof = parse_strict(data)
        if proof["type"] != PROOF_TYPE:
            raise StatementInvalid("format", f"type {proof['type']!r}")
        checkpoint = NoteVerifier(public_key).open_checkpoint(proof["checkpoint"])
        statement = proof["statement"]
        moved = {"paid_nanos": 0, "paid_microtokens": 0}
        for window in proof["windows"]:
            _verify_receipts(window, checkpoint.size, checkpoint.root)
            _verify_payout(window, statement["account"], statement["currency"])
            for transfer in window["transfers"]:
                moved["paid_microtokens" if transfer["unit"] == MICROTOKEN else "paid_nanos"] += transfer["amount"]
        _verify_lines(statement, proof["windows"])
        if any(statement["totals"][name] != amount for name, amount in moved.items()):
            raise StatementInvalid("totals", f"transfers are {moved}")
    except NoteInvalid as error:
        raise StatementInvalid("checkpoint", str(error)) from error
    except ProofInvalid as error:
        raise StatementInvalid("inclusion", str(error)) from error
    except (CanonicalError, DocumentInvalid, KeyError, TypeError, AttributeError, ValueError) as error:
        raise StatementInvalid("format", f"{type(error).__name__}: {error}") from error
    return statement


def _verify_lines(statement: dict[str, Any], windows: list[dict[str, Any]]) -> None:
    """Each line's paid amounts against the windows' transfers, and its names against their terms."""
    paid: dict[tuple[str, str], dict[str, int]] = {}
    named: dict[str, dict[str, Any]] = {}
    for window in windows:
        terms = digest(canonical_bytes(window["terms"]))
        named[terms] = {"datanet": window["terms"]["datanet"], "adapter": window["terms"]["adapter"]}
        for transfer in window["transfers"]:
            role = transfer["credit"].partition(":")[0]
            sums = paid.setdefault((role, terms), {"paid_nanos": 0, "paid_microtokens": 0})
            sums["paid_microtokens" if transfer["unit"] == MICROTOKEN else "paid_nanos"] += transfer["amount"]
    for line in statement["lines"]:
        key = (line["role"], line["terms"])
        expected = {**paid.pop(key, {"paid_nanos": 0, "paid_microtokens": 0}), **named.get(line["terms"], {})}
        found = {name: line[name] for name in expected}
        if found != expected:
            raise StatementInvalid("lines", f"{key}: {found} is not {expected}")
    if paid:
        raise StatementInvalid("lines", f"no line for {sorted(paid)}")


def _verify_receipts(window: dict[str, Any], size: int, root: bytes) -> None:
    for receipt in window["receipts"]:
        leaf = merkle.leaf_hash(leaf_bytes("usage", receipt["digest"]))
        merkle.verify_inclusion(leaf, receipt["leaf"], size, [decode_base64(node) for node in receipt["path"]], root)
    complete = len(window["receipts"]) == window["receipts_count"]
    if complete and usage_root([receipt["digest"] for receipt in window["receipts"]]) != decode_base64(
        window["receipts_root"]
    ):
        raise StatementInvalid("receipts", f"window {window['window']} has another root")


def _verify_payout(window: dict[str, Any], account: str, currency: str) -> None:
    body = canonical_bytes(window["terms"])
    totals = TermsTotals(0, window["amount_nanos"], window["microtokens"])
    totals.scores.update(window["scores"])
    names = {f"{role}:{account}" for role in ROLES}
    expected = {
        (one.account, one.unit): one.amount
        for one in payouts(decode_terms(body), totals, currency)
        if one.account in names and one.amount
    }
    found = {(one["credit"], one["unit"]): one["amount"] for one in window["transfers"]}
    if found != expected:
        raise StatementInvalid("payout", f"window {window['window']}: {found} is not {expected}")
    terms = digest(body)
    if any(one["debit"] != f"clearing:{terms}" for one in window["transfers"]):
        raise StatementInvalid("terms", f"window {window['window']} was paid under other terms")
    for one in window["transfers"]:
        if one["id"] != f"window/{window['window']}/{terms[7:23]}/{one['credit']}/{one['unit']}":
            raise StatementInvalid("payout", f"transfer {one['id']} is not of window {window['window']}")


def _paid(connection: Connection, account: str, span: Period | None) -> list[tuple[int, str, list[dict[str, Any]]]]:
    """(window, terms, transfers to the account) for each window that paid it, oldest first."""
    low, high = (span.start_us, span.end_us) if span else (0, 2**62)
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for role in ROLES:
        rows = connection.execute(
            "SELECT t.window_id, t.terms, t.id, a.name, a.unit, t.amount FROM transfers t"
            " JOIN accounts a ON a.id = t.credit WHERE a.name = ? AND t.window_id IS NOT NULL"
            " AND t.time_us >= ? AND t.time_us < ?",
            (f"{role}:{account}", low, high),
        )
        for window, terms, identifier, name, unit, amount in rows:
            transfer = {"id": identifier, "debit": f"clearing:{terms}", "credit": name, "unit": unit, "amount": amount}
            groups.setdefault((window, terms), []).append(transfer)
    return [(*key, sorted(groups[key], key=lambda one: one["id"])) for key in sorted(groups)]


def _receipts(connection: Connection, window: int, terms: str) -> list[tuple[int, str]]:
    """Leaf index and body digest of each receipt that the window gathered under the terms, in log order."""
    return [
        (index, name)
        for index, name in connection.execute(
            "SELECT u.leaf_index, l.digest FROM usage u JOIN log_leaves l ON l.leaf_index = u.leaf_index"
            " WHERE u.window_id = ? AND u.terms = ? ORDER BY u.leaf_index",
            (window, terms),
        )
    ]


def _terms(connection: Connection, name: str) -> dict[str, Any]:
    rows = connection.execute("SELECT body FROM documents WHERE digest = ?", (name,))
    return parse_canonical(bytes(rows[0][0]))
