"""Disputes move money there and, if they fail, back: exactly, once, and with every state on record."""

from __future__ import annotations

import pytest

from metering.billing_profile import BillingProfile, put_profile
from metering.check import run_checks
from metering.credit_note import get_credit_note
from metering.dispute import get_dispute, list_disputes, open_dispute, resolve_dispute
from metering.errors import BillingRefused, UsageUnknown
from metering.invoice import build_invoice, render_invoice
from metering.invoice_lifecycle import finalise_invoice, get_invoice
from metering.ledger import now_us
from metering.postings import Transfer

AFTER_US = 40 * 86_400_000_000
PAYEES = ("contributor:ada", "contributor:bob", "contributor:cyd", "contributor:dee", "trainer:tom", "host:hal")
PAYEES += ("governance:facts", "treasury", "residue", "corrections")


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same tests on both stores."""
    return every_store


@pytest.fixture
def paid(market, settler):
    """Five requests of acme and one of the base model, settled and paid out."""
    market.events = [*market.serve(5), *market.serve(1, adapter=None)]
    settler.drain()
    settler.close_window()
    return market


def balances(market) -> dict[str, int]:
    return {name: market.ledger.account_balance(name, "USD").available for name in PAYEES}


def refusal(call, *arguments, **named) -> str:
    with pytest.raises(BillingRefused) as refused:
        call(*arguments, **named)
    return str(refused.value.status)


def assert_clean(market) -> None:
    assert run_checks(market.config, market.ledger).findings == ()


def test_a_dispute_freezes_the_amount_and_its_rejection_gives_it_back(paid):
    """Taken from those who were paid, in their proportion; every account is as before afterwards."""
    before = balances(paid)
    request_id = paid.events[0].id
    dispute = open_dispute(paid.ledger, "acme", request_id, "the answer was empty")
    assert (dispute["state"], dispute["amount_nanos"]) == ("open", 2161)
    frozen = paid.ledger.account_balance(f"frozen:{dispute['id']}", "USD")
    assert frozen.available == 2161 == sum(move["amount"] for move in dispute["transfers"])
    assert sum(before.values()) - sum(balances(paid).values()) == 2161
    assert "corrections" not in {move["debit"] for move in dispute["transfers"]}
    assert_clean(paid)
    rejected = resolve_dispute(paid.ledger, dispute["id"], uphold=False, reason="scores replayed, same tokens")
    assert [step["state"] for step in rejected["history"]] == ["open", "rejected"]
    assert balances(paid) == before
    assert_clean(paid)


def test_an_upheld_dispute_before_the_invoice_is_an_adjustment_on_it(paid, month):
    """The client has its money back, a credit note says so, and the month's invoice is lower by it."""
    put_profile(paid.ledger, "operator", BillingProfile("Issuer", tax_label="VAT", tax_rate_ppm=100_000))
    before = paid.ledger.balance("acme").available
    dispute = open_dispute(paid.ledger, "acme", paid.events[0].id, "wrong")
    upheld = resolve_dispute(paid.ledger, dispute["id"], uphold=True, reason="replayed: other tokens")
    assert (upheld["state"], upheld["credit_note"]) == ("upheld", "CN-000001")
    assert paid.ledger.balance("acme").available == before + 2161
    note = get_credit_note(paid.ledger, "CN-000001")
    assert (note["invoice"], note["tax_nanos"], note["request_id"]) == (None, 0, paid.events[0].id)
    assert_clean(paid)
    draft = build_invoice(paid.ledger, "acme", month)
    invoice = finalise_invoice(paid.ledger, "acme", month, at_us=now_us() + AFTER_US)
    assert [one["credit_note"] for one in invoice["adjustments"]] == ["CN-000001"]
    assert invoice["net_nanos"] == invoice["subtotal_nanos"] - 2161 == draft["net_nanos"]
    assert invoice["total_nanos"] == invoice["net_nanos"] + invoice["tax"]["amount_nanos"]
    assert "CN-000001" in render_invoice(invoice)
    assert_clean(paid)


def test_an_upheld_dispute_after_the_invoice_is_a_credit_note_on_it_with_tax(paid, month):
    """The finalised document stays; the credit note gives back the request and its part of the tax."""
    put_profile(paid.ledger, "operator", BillingProfile("Issuer", tax_label="VAT", tax_rate_ppm=100_000))
    invoice = finalise_invoice(paid.ledger, "acme", month, at_us=now_us() + AFTER_US)
    before = paid.ledger.balance("acme").available
    dispute = open_dispute(paid.ledger, "acme", paid.events[1].id, "wrong")
    resolve_dispute(paid.ledger, dispute["id"], uphold=True, reason="yes")
    note = get_credit_note(paid.ledger, "CN-000001")
    assert (note["invoice"], note["amount_nanos"], note["tax_nanos"]) == ("INV-000001", 2161, 216)
    assert paid.ledger.balance("acme").available == before + 2377
    after = get_invoice(paid.ledger, "INV-000001")
    assert after["digest"] == invoice["digest"]
    assert after["credit_notes"][0]["total_nanos"] == 2377
    assert_clean(paid)


@pytest.mark.parametrize("part", [1, 1000, 2160])
def test_a_dispute_upheld_in_part_divides_the_frozen_amount(paid, month, part):
    """The client gets its part with a credit note, the payees the rest; nothing stays frozen, nothing is lost."""
    put_profile(paid.ledger, "operator", BillingProfile("Issuer", tax_label="VAT", tax_rate_ppm=100_000))
    finalise_invoice(paid.ledger, "acme", month, at_us=now_us() + AFTER_US)
    client, before = paid.ledger.balance("acme").available, balances(paid)
    dispute = open_dispute(paid.ledger, "acme", paid.events[0].id, "half of it was wrong")
    resolved = resolve_dispute(paid.ledger, dispute["id"], uphold=True, reason="in part", amount_nanos=part)
    note = get_credit_note(paid.ledger, resolved["credit_note"])
    assert (resolved["state"], note["amount_nanos"], note["tax_nanos"]) == ("upheld", part, (part + 5) // 10)
    assert paid.ledger.balance("acme").available == client + note["total_nanos"]
    after = balances(paid)
    assert sum(before.values()) - sum(after.values()) == part
    assert all(after[name] <= before[name] for name in before)
    assert_clean(paid)


def test_a_part_is_a_positive_part_of_what_is_frozen(paid):
    """More than is frozen, nothing, a float, or a part of a rejection is refused; the dispute stays open."""
    dispute = open_dispute(paid.ledger, "acme", paid.events[0].id, "wrong")

    def part(amount, uphold=True) -> str:
        return refusal(resolve_dispute, paid.ledger, dispute["id"], uphold=uphold, reason="x", amount_nanos=amount)

    assert part(2162) == "amount_exceeds_dispute"
    assert [part(amount) for amount in (0, -1, 1.0, True, "1")] == ["amount_invalid"] * 5
    assert part(1, uphold=False) == "amount_invalid"
    assert get_dispute(paid.ledger, dispute["id"])["state"] == "open"
    assert_clean(paid)


def test_a_dispute_comes_in_time_or_not_at_all(paid):
    """The issuer says how many days after settlement; on the last one it is open still."""
    put_profile(paid.ledger, "operator", BillingProfile("Issuer", dispute_days=30))
    day_us = 86_400_000_000
    late = (paid.ledger, "acme", paid.events[0].id, "late")
    assert refusal(open_dispute, *late, at_us=now_us() + 30 * day_us + day_us) == "dispute_too_late"
    assert open_dispute(*late, at_us=now_us() + 30 * day_us - day_us)["state"] == "open"


def test_all_disputes_of_a_window_take_back_all_of_it(paid):
    """Whatever the roundings, nothing goes below zero and clients get every nano back; the issuer covers the rest."""
    for event in paid.events:
        dispute = open_dispute(paid.ledger, "acme", event.id, "all of it")
        assert_clean(paid)
        resolve_dispute(paid.ledger, dispute["id"], uphold=True, reason="granted")
        assert_clean(paid)
    assert paid.ledger.balance("acme").available == 10**12
    assert sum(balances(paid).values()) == 0
    assert all(amount >= 0 for name, amount in balances(paid).items() if name != "corrections")


def test_what_a_payee_has_no_longer_is_advanced_by_the_issuer(paid):
    """Earnings that were paid on chain cannot be frozen: `corrections` stands in, and gets it back on rejection."""
    ledger = paid.ledger
    ledger.open_account("payout", "USD", overdraft=False).require()
    earned = ledger.account_balance("contributor:ada", "USD").available
    ledger.transfer(Transfer("out", "contributor:ada", "payout", "USD", earned, "payout")).require()
    before = balances(paid)
    dispute = open_dispute(ledger, "acme", paid.events[0].id, "wrong")
    assert ledger.account_balance("corrections", "USD").available < 0
    assert_clean(paid)
    resolve_dispute(ledger, dispute["id"], uphold=False, reason="no")
    assert balances(paid) == before


def test_a_refund_first_repays_what_the_client_owes(market, settler):
    """As a top-up would."""
    event = market.event(tenant="poor")
    market.journal(event)
    settler.drain()
    settler.close_window()
    dispute = open_dispute(market.ledger, "poor", event.id, "wrong")
    resolve_dispute(market.ledger, dispute["id"], uphold=True, reason="yes")
    assert market.ledger.account_balance("receivable:poor", "USD").available == 0
    assert market.ledger.balance("poor").available == 0
    assert_clean(market)


def test_wrong_steps_are_named_and_change_nothing(paid, settler):
    """Unknown, another tenant's, twice, free of charge, not yet paid out, resolved twice, without a reason."""
    ledger = paid.ledger
    first = paid.events[0].id
    with pytest.raises(UsageUnknown):
        open_dispute(ledger, "acme", "req_" + "0" * 31 + "f", "x")
    assert refusal(open_dispute, ledger, "globex", first, "x") == "receipt_of_other_tenant"
    assert refusal(open_dispute, ledger, "acme", first, "") == "reason_missing"
    dispute = open_dispute(ledger, "acme", first, "x")
    assert refusal(open_dispute, ledger, "acme", first, "x") == "dispute_exists"
    resolve_dispute(ledger, dispute["id"], uphold=False, reason="no")
    assert refusal(open_dispute, ledger, "acme", first, "x") == "dispute_exists"
    assert refusal(resolve_dispute, ledger, dispute["id"], uphold=True, reason="yes") == "dispute_resolved"
    assert refusal(resolve_dispute, ledger, "dsp_0", uphold=True, reason="yes") == "dispute_unknown"
    [canary] = paid.serve(1, purpose="canary")
    [unpaid] = paid.serve(1)
    settler.drain()
    assert refusal(open_dispute, ledger, "acme", canary.id, "x") == "nothing_to_dispute"
    assert refusal(open_dispute, ledger, "acme", unpaid.id, "x") == "window_open"
    assert [one["state"] for one in list_disputes(ledger, "acme")] == ["rejected"]
    assert list_disputes(ledger, state="open") == list_disputes(ledger, "globex") == []
    assert get_dispute(ledger, dispute["id"])["request_id"] == first
    assert_clean(paid)


def test_the_check_finds_money_missing_from_a_dispute(paid):
    """A frozen account must hold exactly what is disputed."""
    dispute = open_dispute(paid.ledger, "acme", paid.events[0].id, "x")
    paid.ledger.transfer(Transfer("theft", f"frozen:{dispute['id']}", "treasury", "USD", 1, "theft")).require()
    assert [found.name for found in run_checks(paid.config, paid.ledger).findings] == ["frozen_not_dispute"]


def test_disputes_are_entries_of_the_log(paid, settler):
    """Opening and outcome are sequenced like every other document."""
    dispute = open_dispute(paid.ledger, "acme", paid.events[0].id, "x")
    resolve_dispute(paid.ledger, dispute["id"], uphold=True, reason="yes")
    settler.drain()
    with paid.ledger.store.read() as connection:
        kinds = [row[0] for row in connection.execute("SELECT kind FROM log_leaves ORDER BY leaf_index")]
    assert kinds[-3:] == ["dispute", "credit_note", "dispute_outcome"]
    assert_clean(paid)
