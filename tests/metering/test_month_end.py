"""When a month is over every tenant has its invoice, once, whoever notices and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from metering import settler as settler_module
from metering.check import run_checks
from metering.errors import BillingRefused, PeriodInvalid
from metering.invoice_lifecycle import finalise_invoice, list_invoices, void_invoice
from metering.month_end import MonthEnd, finalise_due
from metering.period import parse_period
from metering.receipts_root import receipts_root

MINUTE_US = 60_000_000


@pytest.fixture
def ledger_url(every_store) -> str:
    return every_store


@pytest.fixture
def used(market, settler):
    """Two tenants have used something this month."""
    market.ledger.credit("topup-2", "beta", 10**12).require()
    market.serve(2)
    market.serve(1, tenant="beta")
    settler.drain()
    return market


def test_a_month_that_is_over_is_invoiced_once(used, month):
    """Not before a minute after its end; then each tenant, and never again; a voided one is the operator's matter."""
    end_us = parse_period(month).end_us
    assert finalise_due(used.ledger, at_us=end_us + MINUTE_US - 1) == []
    made = finalise_due(used.ledger, at_us=end_us + MINUTE_US)
    assert [(one["number"], one["tenant"], one["period"]) for one in made] == [
        ("INV-000001", "acme", month), ("INV-000002", "beta", month),
    ]  # fmt: skip
    assert finalise_due(used.ledger, at_us=end_us + 2 * MINUTE_US) == []
    assert run_checks(used.config, used.ledger).findings == ()


def test_several_at_once_make_each_invoice_once(used, month):
    """Two settlers and a command at the same moment: numbers without gaps, one invoice a tenant."""
    at_us = parse_period(month).end_us + MINUTE_US
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: finalise_due(used.ledger, at_us=at_us), range(4)))
    assert sum(map(len, made)) == 2
    assert [one["number"] for one in list_invoices(used.ledger)] == ["INV-000001", "INV-000002"]


def test_nothing_is_settled_in_a_month_that_was_invoiced(used, settler, month):
    """A settler whose clock is behind the operator's: what it settles is in the next month, for every tenant."""
    finalise_due(used.ledger, at_us=parse_period(month).end_us + MINUTE_US)
    late = [*used.serve(1), *used.serve(1, tenant="beta")]
    settler.drain()
    with used.ledger.store.read() as connection:
        days = dict(connection.execute("SELECT day, sum(requests) FROM usage_totals GROUP BY day"))
    assert max(days) == (parse_period(month).last + timedelta(days=1)).isoformat()
    assert days[max(days)] == 3 * len(late)
    assert run_checks(used.config, used.ledger).clean


def test_receipts_that_were_settled_meanwhile_are_on_the_invoice(used, settler, month, monkeypatch):
    """The root is computed before the locks are taken; what came in between is seen, and counted."""

    def and_settle_another(connection, tenant, span):
        root = receipts_root(connection, tenant, span)
        monkeypatch.setattr("metering.invoice_lifecycle.receipts_root", receipts_root)
        with ThreadPoolExecutor(1) as pool:  # another process, as far as the store knows
            pool.submit(lambda: (used.serve(1), settler.drain())).result()
        return root

    monkeypatch.setattr("metering.invoice_lifecycle.receipts_root", and_settle_another)
    invoice = finalise_invoice(used.ledger, "acme", month, at_us=parse_period(month).end_us + MINUTE_US)
    assert (invoice["receipts"]["count"], invoice["lines"][0]["requests"]) == (3, 3)
    assert run_checks(used.config, used.ledger).clean


def test_the_settler_does_it_at_its_turn(used, settler, month, monkeypatch):
    """Its turns do nothing until the month is over, then finalise; with `manual` never."""
    settler.tick()
    assert list_invoices(used.ledger) == []
    at_us = parse_period(month).end_us + MINUTE_US
    monkeypatch.setattr(settler_module, "now_us", lambda: at_us)
    settler._tidy_at = float("-inf")
    settler.tick()
    assert [one["tenant"] for one in list_invoices(used.ledger)] == ["acme", "beta"]


def test_a_turn_that_failed_is_taken_again(used, month, monkeypatch):
    """The month counts as done only when all of it is."""
    at_us = parse_period(month).end_us + MINUTE_US
    turns = MonthEnd(used.ledger)
    with monkeypatch.context() as patched:
        patched.setattr("metering.month_end.finalise_invoice", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            turns.turn(at_us)
    assert len(turns.turn(at_us)) == 2
    assert turns.turn(at_us) == []


def test_a_voided_month_is_left_to_the_operator(market, settler, month):
    """What a person withdrew, no machine issues again; by command it can be."""
    market.serve(1, tenant="acme")
    settler.drain()
    at_us = parse_period(month).end_us + MINUTE_US
    finalise_due(market.ledger, at_us=at_us)
    with market.ledger.store.write() as connection:  # as if it could not be paid
        connection.execute("UPDATE invoices SET state = 'open'")
    void_invoice(market.ledger, "INV-000001", "wrong address")
    assert finalise_due(market.ledger, at_us=at_us) == []
    assert finalise_invoice(market.ledger, "acme", month, at_us=at_us)["number"] == "INV-000002"


def test_a_month_in_which_all_was_free_has_no_invoice(market, settler, month):
    """Whoever only had canaries gets no invoice of nothing."""
    market.ledger.credit("topup-2", "beta", 10**9).require()
    market.serve(2, tenant="beta", purpose="canary")
    settler.drain()
    assert finalise_due(market.ledger, at_us=parse_period(month).end_us + MINUTE_US) == []


def test_a_named_month_must_be_one_that_is_over(used, month):
    """By command for one month: a day, the running month and nonsense are refused by name."""
    for period, status in ((f"{month}-01", "period_not_a_month"), (month, "period_not_over")):
        with pytest.raises(BillingRefused) as refused:
            finalise_due(used.ledger, period)
        assert refused.value.status == status
    with pytest.raises(PeriodInvalid):
        finalise_due(used.ledger, "soon")
    assert finalise_due(used.ledger, "2020-01") == []
