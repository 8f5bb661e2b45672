"""The published vectors of what the meter makes: the same events give the same bytes, in any implementation.

`python -m tests.metering.test_vectors` writes them anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from metering.billing_profile import BillingProfile, put_profile
from metering.canonical import canonical_bytes, digest, parse_canonical
from metering.config import MeteringConfig
from metering.cosignature import Cosigner
from metering.errors import NoteInvalid
from metering.event import encode_event
from metering.invoice_lifecycle import finalise_invoice
from metering.ledger import Ledger
from metering.note import Checkpoint, NoteSigner, NoteVerifier, encode_base64, handover_text
from metering.receipt import build_receipt, verify_receipt
from metering.settler import Settler
from metering.statement import build_statement
from metering.statement_proof import build_statement_proof, verify_statement_proof
from metering.witness_policy import parse_policy
from tests.metering.conftest import BASE_TERMS, BOOK, TERMS, Market

FOLDER = Path(__file__).parents[1] / "vectors"
NOVEMBER_2025_US = 1_762_041_600_000_000
DECEMBER_2025_US = NOVEMBER_2025_US + 30 * 86_400_000_000
ISSUER = BillingProfile("OpenLedger Oy", ("Mannerheimintie 1", "Helsinki"), "FI1", "a@b.fi", "VAT", 255_000, 14)
CLIENT = BillingProfile("Acme GmbH", ("Unter den Linden 1",), "DE2")
MOVED = "SELECT t.id, d.name, c.name, d.unit, t.amount, t.code FROM transfers t JOIN accounts d ON d.id = t.debit"


def settled(directory: Path) -> dict[str, Any]:
    """What six fixed events become, with fixed clocks and a fixed key of the log."""
    config = MeteringConfig(data_dir=directory, min_free_bytes=1)
    directory.mkdir(parents=True, exist_ok=True)
    seed = encode_base64(b"\1" + b"\7" * 32)
    config.log_key_path.write_text(f"PRIVATE+KEY+{config.log_origin}+00000000+{seed}\n")
    ledger = Ledger.open(config)
    for kind, document in (("price_book", BOOK), ("terms", TERMS), ("terms", BASE_TERMS)):
        ledger.put_document(kind, document.encode())
    ledger.credit("topup-1", "acme", 10**9).require()
    put_profile(ledger, "operator", ISSUER)
    put_profile(ledger, "acme", CLIENT)
    market = Market(config, ledger)
    events = [market.event() for _ in range(3)]
    events += [market.event(adapter=None), market.event(purpose="canary"), market.event(scores={"bob": -5})]
    market.journal(*events)
    with patch("metering.settler.now_us", lambda: NOVEMBER_2025_US):
        settler = Settler(config)
        settler.drain()
        settler.close_window()
        settler.close()
    invoice = finalise_invoice(ledger, "acme", "2025-11", at_us=DECEMBER_2025_US)
    with ledger.store.read() as connection:
        moved = connection.execute(f"{MOVED} JOIN accounts c ON c.id = t.credit ORDER BY t.seq")
    found = {
        "events": [encode_event(event).decode() for event in events],
        "price_book": BOOK.encode().decode(),
        "terms": [TERMS.encode().decode(), BASE_TERMS.encode().decode()],
        "log_key": config.log_public_key_path.read_text(),
        "receipts": [build_receipt(ledger, event.id).decode() for event in events],
        "transfers": [
            dict(zip(("id", "debit", "credit", "unit", "amount", "code"), row, strict=True)) for row in moved
        ],
        "invoice": {"bytes": (ledger.document(invoice["digest"]) or b"").decode(), "digest": invoice["digest"]},
        "statement": build_statement(ledger, "ada", "2025-11"),
        "statement_proof": build_statement_proof(ledger, "ada", "2025-11").decode(),
    }
    ledger.close()
    return found


def heads() -> dict[str, Any]:
    """Checkpoints by two keys of one log and a witness, the list of keys after a rotation, and who believes what."""
    old, new = (NoteSigner("log.example", bytes([n]) * 32) for n in (1, 2))
    cosigner = Cosigner(NoteSigner("witness.example/w1", b"\3" * 32))
    signature = encode_base64(old.sign_bytes(handover_text(old.public_key, 6, new.public_key)))
    texts = {size: Checkpoint("log.example", size, bytes([size]) * 32).text() for size in (5, 6, 7)}
    signed = [("old", size, old) for size in (5, 6, 7)] + [("new", size, new) for size in (6, 7)]
    return {
        "keys": f"{new.public_key}\n{old.public_key} until 6 {signature}\n",
        "policy": f"witness w1 {cosigner.public_key}\nquorum w1\n",
        "notes": [
            {
                "fact": f"a tree of {size} signed by the {name} key",
                "note": signer.sign(texts[size]),
                "holds": (name == "old") == (size <= 6),
            }
            for name, size, signer in signed
        ],
        "cosigned": new.sign(texts[7]) + cosigner.cosign(texts[7], 1_679_315_147),
    }


def published(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Any]:
    return settled(tmp_path_factory.mktemp("vectors") / "data")


@pytest.mark.parametrize("name", ["receipts", "transfers", "invoice", "statement", "statement_proof"])
def test_settlement_makes_the_published_bytes(made, name):
    """From the published events, prices and terms: receipts, transfers, invoice, statement and its proof."""
    vector = published("settlement")
    assert [made[given] for given in ("events", "price_book", "terms")] == [
        vector[given] for given in ("events", "price_book", "terms")
    ]
    assert made[name] == vector[name]


def test_the_published_documents_hold():
    """They verify from the file alone: receipts and proof with the log's key, the invoice by its digest and sums."""
    vector = published("settlement")
    assert [verify_receipt(one.encode(), vector["log_key"]).leaf_index for one in vector["receipts"]] == [
        3,
        4,
        5,
        6,
        7,
        8,
    ]
    assert verify_statement_proof(vector["statement_proof"].encode(), vector["log_key"]) == vector["statement"]
    body = vector["invoice"]["bytes"].encode()
    invoice = parse_canonical(body)
    assert digest(body) == vector["invoice"]["digest"]
    assert canonical_bytes(invoice) == body
    assert invoice["subtotal_nanos"] == sum(line["amount_nanos"] for line in invoice["lines"])
    usage = [one for one in vector["transfers"] if one["code"] == "usage"]
    assert invoice["debited_nanos"] == sum(one["amount"] for one in usage)


def test_the_transfers_of_a_window_add_up():
    """Debits are credits in each unit, by construction; clearing is empty; every microtoken has its owner."""
    balances: dict[tuple[str, str], int] = {}
    for one in published("settlement")["transfers"]:
        for account, sign in ((one["debit"], -1), (one["credit"], 1)):
            balances[account, one["unit"]] = balances.get((account, one["unit"]), 0) + sign * one["amount"]
    assert sum(balances.values()) == 0
    assert all(amount == 0 for (account, _), amount in balances.items() if account.startswith("clearing:"))
    assert balances["generated", "microtoken"] == -42_000_000


def test_heads_of_a_rotated_and_witnessed_log():
    """The published list of keys believes each head that its key may sign, and no other; the policy its witness."""
    vector = published("checkpoint")
    assert vector == heads()
    verifier = NoteVerifier(vector["keys"])
    for one in vector["notes"]:
        if one["holds"]:
            verifier.open_checkpoint(one["note"], strict=True)
        else:
            with pytest.raises(NoteInvalid):
                verifier.open_checkpoint(one["note"], strict=True)
    witnesses, note = parse_policy(vector["policy"]).check(vector["cosigned"])
    assert (witnesses, verifier.open_checkpoint(note, strict=True).size) == (("w1",), 7)


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        vectors = {"settlement": settled(Path(folder) / "data"), "checkpoint": heads()}
    for name, value in vectors.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write()
