"""Draft, open, paid, void: each step once, in one transaction, with a number that is never lost or used twice."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from metering.billing_profile import BillingProfile, put_profile
from metering.canonical import canonical_bytes, digest
from metering.check import run_checks
from metering.credit_note import credit_invoice, get_credit_note, list_credit_notes
from metering.errors import BillingRefused, PeriodInvalid
from metering.invoice import build_invoice, render_invoice
from metering.invoice_lifecycle import finalise_invoice, get_invoice, list_invoices, pay_invoice, void_invoice
from metering.ledger import now_us
from metering.period import parse_period

AFTER_US = 40 * 86_400_000_000
SELLER = BillingProfile("OpenLedger Oy", ("Mannerheimintie 1", "Helsinki"), "FI1", "a@b.fi", "VAT", 255_000, 14)


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same tests on both stores."""
    return every_store


@pytest.fixture
def issued(market, settler, month):
    """A market in which acme used 3 requests of 2161 nanos and the next month has begun."""
    put_profile(market.ledger, "operator", SELLER)
    put_profile(market.ledger, "acme", BillingProfile("Acme GmbH", ("Unter den Linden 1",), "DE2"))
    market.serve(3)
    settler.drain()
    return market


def finalise(market, month, tenant="acme"):
    return finalise_invoice(market.ledger, tenant, month, at_us=now_us() + AFTER_US)


def refusal(call, *arguments, **named) -> str:
    with pytest.raises(BillingRefused) as refused:
        call(*arguments, **named)
    return str(refused.value.status)


def assert_clean(market) -> None:
    assert run_checks(market.config, market.ledger).findings == ()


def test_a_finalised_invoice_adds_up_and_is_paid_from_credit(issued, settler, month):
    """Lines, tax, total; the tax is a transfer; document and digest are in the log."""
    invoice = finalise(issued, month)
    assert (invoice["number"], invoice["status"], invoice["amount_due_nanos"]) == ("INV-000001", "paid", 0)
    assert invoice["subtotal_nanos"] == 6483 == sum(line["amount_nanos"] for line in invoice["lines"])
    assert invoice["tax"] == {"label": "VAT", "rate_ppm": 255_000, "amount_nanos": 1653}  # 1653.165
    assert invoice["total_nanos"] == 6483 + 1653
    assert issued.ledger.account_balance("tax", "USD").available == 1653
    assert issued.ledger.balance("acme").debits == invoice["total_nanos"]
    assert [step["state"] for step in invoice["history"]] == ["open", "paid"]
    assert (invoice["issuer"]["name"], invoice["client"]["name"]) == ("OpenLedger Oy", "Acme GmbH")
    assert digest(issued.ledger.document(invoice["digest"])) == invoice["digest"]
    settler.drain()
    with issued.ledger.store.read() as connection:
        assert connection.execute("SELECT kind FROM log_leaves WHERE digest = ?", (invoice["digest"],)) == [
            ("invoice",)
        ]
    assert_clean(issued)


def test_a_finalised_invoice_never_changes(issued, settler, month):
    """Later usage, profiles and prices leave the document as it was."""
    before = issued.ledger.document(finalise(issued, month)["digest"])
    put_profile(issued.ledger, "acme", BillingProfile("Acme AG"))
    view = get_invoice(issued.ledger, "INV-000001")
    assert issued.ledger.document(view["digest"]) == before
    assert view["client"]["name"] == "Acme GmbH"
    assert build_invoice(issued.ledger, "acme", month)["number"] == "INV-000001"


def test_periods_that_cannot_be_invoiced_are_named(issued, month):
    """A day, a month that is not over, one that has its invoice, one without usage, no month at all."""
    ledger = issued.ledger
    assert refusal(finalise_invoice, ledger, "acme", f"{month}-01") == "period_not_a_month"
    assert refusal(finalise_invoice, ledger, "acme", month) == "period_not_over"
    just_over = parse_period(month).end_us + 1
    assert refusal(finalise_invoice, ledger, "acme", month, at_us=just_over) == "period_not_over"
    assert refusal(finalise_invoice, ledger, "acme", "2020-01") == "nothing_to_invoice"
    finalise(issued, month)
    assert refusal(finalise, issued, month) == "period_closed"
    with pytest.raises(PeriodInvalid):
        finalise_invoice(ledger, "acme", "2020-13")
    assert [one["number"] for one in list_invoices(ledger)] == ["INV-000001"]  # refusals took no number


def test_numbers_have_no_gaps_under_concurrency(issued, settler, month):
    """Eight threads, refusals among them: 1 to n, each once."""
    for tenant in "abcdef":
        issued.ledger.credit(f"topup-{tenant}", tenant, 10**9).require()
        issued.serve(1, tenant=tenant)
    settler.drain()

    def attempt(tenant):
        try:
            return finalise(issued, month, tenant)["number"]
        except BillingRefused as error:
            return str(error.status)

    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(attempt, [*"abcdef", *"abcdef", "nobody", "stranger"]))
    numbers = sorted(one for one in got if one.startswith("INV-"))
    assert numbers == [f"INV-{n:06d}" for n in range(1, 7)]
    assert (
        sorted(one for one in got if not one.startswith("INV-")) == ["nothing_to_invoice"] * 2 + ["period_closed"] * 6
    )
    assert_clean(issued)


def test_what_is_owed_stays_open_until_it_is_repaid(issued, settler, month):
    """An invoice with a shortfall is open and due; a top-up repays it and makes it paid."""
    issued.ledger.credit("poor-1", "poor", 1000).require()
    issued.journal(issued.event(tenant="poor"))
    settler.drain()
    invoice = finalise(issued, month, "poor")
    assert (invoice["status"], invoice["total_nanos"]) == ("open", 2161 + 551)
    assert invoice["amount_due_nanos"] == invoice["total_nanos"] - 1000
    assert "due 0.000001712 USD by" in render_invoice(invoice)
    issued.ledger.credit("poor-2", "poor", 700).require()
    assert pay_invoice(issued.ledger, "INV-000001")["amount_due_nanos"] == 1012
    assert_clean(issued)
    issued.ledger.credit("poor-3", "poor", 5000).require()
    paid = get_invoice(issued.ledger, "INV-000001")
    assert (paid["status"], paid["amount_due_nanos"]) == ("paid", 0)
    assert [step["state"] for step in paid["history"]] == ["open", "paid"]
    assert issued.ledger.balance("poor").available == 1000 + 700 + 5000 - invoice["total_nanos"]
    assert_clean(issued)


def test_a_void_invoice_gives_back_its_tax_and_frees_its_month(issued, settler, month):
    """Open to void with a reason; the next invoice of the month has the next number and both stay readable."""
    ledger = issued.ledger
    issued.journal(issued.event(tenant="poor"))
    settler.drain()
    assert finalise(issued, month, "poor")["amount_due_nanos"] == 2712
    assert refusal(void_invoice, ledger, "INV-000001", "") == "reason_missing"
    void = void_invoice(ledger, "INV-000001", "wrong address")
    assert (void["status"], void["history"][-1]["reason"]) == ("void", "wrong address")
    assert ledger.account_balance("tax", "USD").available == 0
    assert_clean(issued)
    assert refusal(void_invoice, ledger, "INV-000001", "again") == "invoice_not_open"
    again = finalise(issued, month, "poor")
    assert (again["number"], again["amount_due_nanos"]) == ("INV-000002", 2712)
    ledger.credit("rich", "poor", 10_000).require()
    assert get_invoice(ledger, "INV-000002")["status"] == "paid"
    assert ledger.balance("poor").available == 10_000 - 2712
    assert refusal(void_invoice, ledger, "INV-000002", "late") == "invoice_not_open"
    assert refusal(void_invoice, ledger, "INV-000009", "none") == "invoice_unknown"
    assert_clean(issued)


def test_credit_notes_give_back_amount_and_tax_and_no_more_than_the_invoice(issued, month):
    """In parts whose taxes add up to the invoice's tax; each is a numbered, immutable document."""
    ledger = issued.ledger
    invoice = finalise(issued, month)
    before = ledger.balance("acme").available
    assert refusal(credit_invoice, ledger, "INV-000009", 1, "goodwill") == "invoice_unknown"
    assert refusal(credit_invoice, ledger, "INV-000001", 0, "goodwill") == "amount_invalid"
    assert refusal(credit_invoice, ledger, "INV-000001", 1.5, "goodwill") == "amount_invalid"
    assert refusal(credit_invoice, ledger, "INV-000001", 6484, "goodwill") == "credit_exceeds_invoice"
    notes = [credit_invoice(ledger, "INV-000001", amount, "goodwill") for amount in (1, 2, 3, 6477)]
    assert [note["number"] for note in notes] == [f"CN-{n:06d}" for n in range(1, 5)]
    assert sum(note["tax_nanos"] for note in notes) == invoice["tax"]["amount_nanos"]
    assert ledger.balance("acme").available == before + invoice["total_nanos"]
    assert ledger.account_balance("corrections", "USD").available == -6483
    assert refusal(credit_invoice, ledger, "INV-000001", 1, "more") == "credit_exceeds_invoice"
    assert get_credit_note(ledger, "CN-000004")["invoice_digest"] == invoice["digest"]
    assert refusal(get_credit_note, ledger, "CN-000005") == "credit_note_unknown"
    assert len(list_credit_notes(ledger, "acme")) == 4
    assert list_credit_notes(ledger, "globex") == []
    view = get_invoice(ledger, "INV-000001")
    assert sum(note["total_nanos"] for note in view["credit_notes"]) == view["total_nanos"]
    assert "credited by CN-000004" in render_invoice(view)
    assert_clean(issued)


def test_a_clients_own_tax_rate_wins(issued, month):
    """Reverse charge: the operator's exception for one client is 0."""
    put_profile(issued.ledger, "acme", BillingProfile("Acme GmbH", tax_label="Reverse charge", tax_rate_ppm=0))
    invoice = finalise(issued, month)
    assert invoice["tax"] == {"label": "Reverse charge", "rate_ppm": 0, "amount_nanos": 0}
    assert invoice["total_nanos"] == invoice["subtotal_nanos"]
    assert_clean(issued)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": 1},
        {"address": ("x",) * 7},
        {"note": "two\nlines"},
        {"tax_rate_ppm": 0.2},
        {"tax_rate_ppm": 1_000_001},
        {"terms_days": -1},
    ],
)
def test_bad_profiles_are_refused(change):
    """Every field is checked, floats included."""
    with pytest.raises(BillingRefused, match="profile_invalid"):
        dataclasses.replace(SELLER, **change)


DAMAGE = [
    ("UPDATE billing_sequences SET last = last + 1", "number_gap"),
    ("UPDATE documents SET body = CAST('{}' AS BLOB) WHERE kind = 'credit_note'", "billing_document_changed"),
    ("DELETE FROM documents WHERE kind = 'invoice'", "billing_document_changed"),
    ("UPDATE transfers SET time_us = 0 WHERE code = 'usage' AND id LIKE '%1/usage'", "invoice_not_transfers"),
    ("DELETE FROM transfers WHERE id LIKE 'invoice/%/tax'", "invoice_tax_not_transfers"),
    ("DELETE FROM transfers WHERE id LIKE 'credit-note/%/amount'", "credit_note_not_transfers"),
]


@pytest.mark.parametrize(("statement", "finding"), DAMAGE)
def test_the_check_names_each_kind_of_damage(issued, month, statement, finding):
    """Invoices and credit notes are guarded like everything else in the ledger."""
    finalise(issued, month)
    credit_invoice(issued.ledger, "INV-000001", 100, "goodwill")
    assert_clean(issued)
    with issued.ledger.store.write() as connection:
        connection.execute(statement.replace("AS BLOB", "AS BYTEA" if issued.config.ledger_url else "AS BLOB"))
    assert finding in [found.name for found in run_checks(issued.config, issued.ledger).findings]


def test_documents_hold_no_floats(issued, month):
    """Drafts, too, have a canonical form."""
    assert canonical_bytes(build_invoice(issued.ledger, "acme", month))
