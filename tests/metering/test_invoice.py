"""Invoices add up, from lines and from transfers alike."""

from __future__ import annotations

import json

import pytest

from metering import merkle
from metering.canonical import canonical_bytes, digest
from metering.errors import PeriodInvalid
from metering.event import rfc3339
from metering.invoice import build_invoice, render_invoice
from metering.ledger import now_us
from metering.log import leaf_bytes
from metering.note import encode_base64
from metering.receipt import build_receipt


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same tests on both stores."""
    return every_store


def test_lines_add_up_to_what_was_debited(market, settler, month):
    """A line for each model, token kind and price; their sum is the total and the sum of the transfers."""
    market.serve(3)
    market.serve(2, adapter=None)
    market.serve(1, purpose="canary")
    settler.drain()
    invoice = build_invoice(market.ledger, "acme", month)
    assert invoice["total_nanos"] == 3 * (700 + 40 + 7 * 203) + 2 * (70 + 4 + 140) == invoice["debited_nanos"]
    assert market.ledger.balance("acme").debits == invoice["total_nanos"]
    assert sum(line["amount_nanos"] for line in invoice["lines"]) == invoice["total_nanos"]
    assert all(line["amount_nanos"] == line["quantity"] * line["unit_nanos"] for line in invoice["lines"])
    paid = [(x["model"], x["kind"], x["quantity"]) for x in invoice["lines"] if x["unit_nanos"]]
    assert paid == [
        ("base", "prompt", 14),
        ("base", "completion", 14),
        ("base", "cached", 8),
        ("facts/oracle", "prompt", 21),
        ("facts/oracle", "completion", 21),
        ("facts/oracle", "cached", 12),
    ]
    assert invoice["status"] == "draft"
    json.loads(canonical_bytes(invoice))  # no float anywhere


def test_a_day_and_another_tenant(market, settler, month):
    """Periods and tenants do not leak into each other."""
    market.serve(1)
    settler.drain()
    today = rfc3339(now_us())[:10]
    assert build_invoice(market.ledger, "acme", today)["total_nanos"] == 2161
    assert build_invoice(market.ledger, "acme", "2020-01")["total_nanos"] == 0
    assert build_invoice(market.ledger, "acme", "2020-01")["status"] == "draft"
    assert build_invoice(market.ledger, "globex", month)["lines"] == []


def test_what_is_owed_is_shown(market, settler, month):
    """total = debited + owed, also when the wallet could not pay."""
    market.ledger.credit("poor-1", "poor", 1000).require()
    market.journal(market.event(tenant="poor"))
    settler.drain()
    invoice = build_invoice(market.ledger, "poor", month)
    assert (invoice["total_nanos"], invoice["debited_nanos"], invoice["owed_nanos"]) == (2161, 1000, 1161)
    assert "owed 0.000001161 USD" in render_invoice(invoice)


def test_the_text_shows_every_line(market, settler, month):
    """The readable form has each model, exact decimals and the total."""
    market.serve(1)
    settler.drain()
    text = render_invoice(build_invoice(market.ledger, "acme", month))
    assert "facts/oracle  completion tokens" in text
    assert "0.000000203" in text
    assert "total 0.000002161 USD" in text


@pytest.mark.parametrize("period", ["", "2026", "2026-13", "2026-02-30", "26-01", "2026-01-01T", "٢٠٢٦-01", None])
def test_bad_periods_are_named(ledger, period):
    """What is neither a month nor a day is PeriodInvalid."""
    with pytest.raises(PeriodInvalid):
        build_invoice(ledger, "acme", period)


def test_every_line_reconciles_to_receipts_and_transfers(market, settler, month):
    """Each line is the sum of the rating lines of its receipts, each receipt's total the sum of its transfers."""
    events = [*market.serve(4), *market.serve(2, adapter=None), *market.serve(1, prompt_tokens=29, completion_tokens=3)]
    market.journal(market.event(tenant="globex"))
    settler.drain()
    invoice = build_invoice(market.ledger, "acme", month)
    computed: dict[tuple, list[int]] = {}
    moved = 0
    bodies = [json.loads(build_receipt(market.ledger, event.id))["body"] for event in events]
    with market.ledger.store.read() as connection:
        for body in bodies:
            data = body["event"]["data"]
            for line in body["rating"]["lines"]:
                sums = computed.setdefault(
                    (data["model"], data["adapter"], line["kind"], line["unit_nanos"]), [0, 0, 0]
                )
                sums[0] += bool(line["quantity"])
                sums[1] += line["quantity"]
                sums[2] += line["amount_nanos"]
            for transfer in body["settlement"]["transfers"]:
                rows = connection.execute("SELECT amount, code FROM transfers WHERE id = ?", (transfer["id"],))
                assert rows == [(transfer["amount"], transfer["code"])]
                moved += transfer["amount"] if transfer["unit"] == "USD" else 0
    shown = {
        (line["model"], line["adapter"], line["kind"], line["unit_nanos"]): [
            line["requests"],
            line["quantity"],
            line["amount_nanos"],
        ]
        for line in invoice["lines"]
    }
    assert shown == computed
    assert moved == invoice["subtotal_nanos"] == invoice["debited_nanos"] + invoice["owed_nanos"]


def test_the_receipts_root_is_over_exactly_the_receipts_of_the_tenant(market, settler, month):
    """Recomputed from the receipts' own bodies, in the order of their leaves; other tenants' are not in it."""
    events = market.serve(3)
    market.journal(market.event(tenant="globex"))
    settler.drain()
    events += market.serve(2)
    settler.drain()
    leaves = {}
    for event in events:
        receipt = json.loads(build_receipt(market.ledger, event.id))
        index = int(receipt["proof"].split("\n")[1].removeprefix("index "))
        leaves[index] = merkle.leaf_hash(leaf_bytes("usage", digest(canonical_bytes(receipt["body"]))))
    ordered = [leaves[index] for index in sorted(leaves)]
    root = merkle.tree_root(merkle.MemoryNodes(ordered), len(ordered))
    receipts = build_invoice(market.ledger, "acme", month)["receipts"]
    assert receipts == {
        "count": 5, "first_leaf": min(leaves), "last_leaf": max(leaves), "root": encode_base64(root)
    }  # fmt: skip
    empty = build_invoice(market.ledger, "acme", "2020-01")["receipts"]
    assert (empty["count"], empty["root"]) == (0, encode_base64(merkle.EMPTY_ROOT))
