"""Receipts: a settled request, its leaf, and the proof that the log holds it (docs/formats/receipt.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from metering import merkle
from metering.canonical import canonical_bytes, digest, parse_strict
from metering.cosignature import read_witnessed
from metering.errors import (
    CanonicalError,
    EventInvalid,
    NoteInvalid,
    NotIncluded,
    ProofInvalid,
    ReceiptInvalid,
    UsageUnknown,
)
from metering.event import event_from_json
from metering.ledger import MICROTOKEN, MICROTOKENS_PER_TOKEN, Ledger
from metering.log import leaf_bytes, proof_text
from metering.note import NoteVerifier, decode_base64
from metering.shares import PPM
from metering.witness_policy import WitnessPolicy

RECEIPT_TYPE = "org.openledger.receipt.v1"
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})\Z")
BODY_MEMBERS = {
    "event": None,
    "rating": {"currency", "lines", "total_nanos"},
    "settlement": {"time", "transfers", "window"},
    "shares": {"fidelity_ppm", "method", "provisional_ppm"},
}
OPTIONAL = {"volumes"}  # of the rating, where prices have tiers


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a good receipt says: its parsed body, its leaf and that leaf's index, the signed tree's size and root.

    `witnesses`: the names in the policy of those who cosigned that tree.
    """

    body: dict[str, Any]
    leaf: bytes
    leaf_index: int
    tree_size: int
    root: bytes
    witnesses: tuple[str, ...] = ()


def build_receipt(ledger: Ledger, request_id: str, *, witnessed: bool = False) -> bytes:
    """The receipt file of a settled request; UsageUnknown when it is not settled (yet).

    Under the newest checkpoint; `witnessed`: under the newest that has cosignatures, with them, and NotIncluded while
    none of those covers the request.
    """
    with ledger.store.read() as connection:
        rows = connection.execute("SELECT body, leaf_index FROM usage WHERE id = ?", (request_id,))
        if not rows:
            raise UsageUnknown(f"no settled usage {request_id}")
        body, leaf_index = bytes(rows[0][0]), rows[0][1]
        note = read_witnessed(connection, leaf_index) if witnessed else None
        if witnessed and note is None:
            raise NotIncluded(f"no checkpoint with cosignatures covers {request_id} yet")
        proof = proof_text(connection, leaf_index, note)
    rest = canonical_bytes({"proof": proof, "type": RECEIPT_TYPE})
    return b'{"body":' + body + b"," + rest[1:]  # the body is canonical, and "body" sorts first


def receipt_tenant(ledger: Ledger, request_id: str) -> str:
    """Whose receipt it is: the only tenant that may read it. UsageUnknown when it is not settled (yet)."""
    with ledger.store.read() as connection:
        rows = connection.execute("SELECT tenant FROM usage WHERE id = ?", (request_id,))
    if not rows:
        raise UsageUnknown(f"no settled usage {request_id}")
    return rows[0][0]


def verify_receipt(data: bytes, public_key: str, policy: WitnessPolicy | None = None) -> VerifiedReceipt:
    """Check a receipt offline against the log's public key (the text of log.pub); ReceiptInvalid names the bad step.

    The steps, in order: `canonical`, `format`, `proof`, `witnesses` (only with a policy), `checkpoint`, `inclusion`,
    `event`, `rating`, `settlement`, `shares`. Any changed value fails one of them; layout of the JSON is nobody's
    concern. NoteInvalid for a key that is none.
    """
    verifier = NoteVerifier(public_key)
    witnesses: tuple[str, ...] = ()
    try:
        receipt = parse_strict(data)
    except CanonicalError as error:
        raise ReceiptInvalid("canonical", str(error)) from error
    body = _check_format(receipt)
    index, path, note = _parse_proof(receipt["proof"])
    if policy is not None:
        try:
            witnesses, note = policy.check(note)
        except NoteInvalid as error:
            raise ReceiptInvalid("witnesses", str(error)) from error
    try:
        checkpoint = verifier.open_checkpoint(note, strict=True)
    except NoteInvalid as error:
        raise ReceiptInvalid("checkpoint", str(error)) from error
    leaf = merkle.leaf_hash(leaf_bytes("usage", digest(canonical_bytes(body))))
    try:
        merkle.verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root)
    except ProofInvalid as error:
        raise ReceiptInvalid("inclusion", str(error)) from error
    _check_body(body)
    return VerifiedReceipt(body, leaf, index, checkpoint.size, checkpoint.root, witnesses)


def _check_format(receipt: Any) -> dict[str, Any]:
    if not isinstance(receipt, dict) or receipt.keys() != {"body", "proof", "type"}:
        raise ReceiptInvalid("format", "members are not exactly body, proof, type")
    if receipt["type"] != RECEIPT_TYPE:
        raise ReceiptInvalid("format", f"type {receipt['type']!r}")
    body = receipt["body"]
    if not isinstance(body, dict) or body.keys() != BODY_MEMBERS.keys():
        raise ReceiptInvalid("format", f"body members are not exactly {', '.join(BODY_MEMBERS)}")
    for name, members in BODY_MEMBERS.items():
        if members is not None and (not isinstance(body[name], dict) or body[name].keys() - OPTIONAL != members):
            raise ReceiptInvalid("format", f"{name} members are not exactly {', '.join(sorted(members))}")
    return body


def _parse_proof(proof: Any) -> tuple[int, list[bytes], str]:
    """Leaf index, path and signed checkpoint of a C2SP tlog-proof without extra data."""
    if not isinstance(proof, str):
        raise ReceiptInvalid("proof", "not text")
    head, separator, note = proof.partition("\n\n")
    lines = head.split("\n")
    if not separator or len(lines) < 2 or lines[0] != PROOF_HEADER:
        raise ReceiptInvalid("proof", f"does not start with {PROOF_HEADER}")
    match = INDEX.match(lines[1])
    if not match:
        raise ReceiptInvalid("proof", "no index line")
    try:
        path = [decode_base64(line) for line in lines[2:]]
    except NoteInvalid as error:
        raise ReceiptInvalid("proof", str(error)) from error
    if any(len(value) != 32 for value in path):
        raise ReceiptInvalid("proof", "a hash is not 32 bytes")
    return int(match[1]), path, note


def _check_body(body: dict[str, Any]) -> None:
    """The log signed this body; here its numbers are checked against each other."""
    try:
        event = event_from_json(body["event"])
    except EventInvalid as error:
        raise ReceiptInvalid("event", str(error)) from error
    try:
        rating, settlement = body["rating"], body["settlement"]
        quantities = {line["kind"]: line["quantity"] for line in rating["lines"]}
        computed = event.prompt_tokens - event.cached_tokens
        if quantities != {"prompt": computed, "cached": event.cached_tokens, "completion": event.completion_tokens}:
            raise ReceiptInvalid("rating", "quantities are not the event's")
        if any(line["amount_nanos"] != line["quantity"] * line["unit_nanos"] for line in rating["lines"]):
            raise ReceiptInvalid("rating", "a line is not quantity times price")
        if sum(line["amount_nanos"] for line in rating["lines"]) != rating["total_nanos"]:
            raise ReceiptInvalid("rating", "lines do not add up")
        moved = {rating["currency"]: 0, MICROTOKEN: 0}
        for transfer in settlement["transfers"]:
            moved[transfer["unit"]] += transfer["amount"]
        if moved[rating["currency"]] != rating["total_nanos"]:
            raise ReceiptInvalid("settlement", "transfers are not the rated total")
        if moved[MICROTOKEN] != event.completion_tokens * MICROTOKENS_PER_TOKEN:
            raise ReceiptInvalid("settlement", "microtokens are not the generated tokens")
        shares = body["shares"]["provisional_ppm"]
        if shares and sum(shares.values()) != PPM:
            raise ReceiptInvalid("shares", "do not add up to 1000000")
    except (KeyError, TypeError, AttributeError) as error:
        raise ReceiptInvalid("format", f"a member is missing or of another type: {error}") from error
