"""Settlement through its public surface: journal in, balances, windows, receipts and checks out."""

from __future__ import annotations

import dataclasses

import pytest

from metering.check import run_checks
from metering.errors import SettlerRunning
from metering.ledger import MICROTOKEN, now_us
from metering.pricebook import PriceBook, Prices
from metering.settlement import SettledBatch
from metering.settler import Settler

EVENT_NANOS = 7 * 100 + 4 * 10 + 7 * 203


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same tests on both stores."""
    return every_store


def names(report) -> list[str]:
    return [finding.name for finding in report.findings]


def test_client_is_debited_the_actual_cost_and_the_hold_is_released(market, settler):
    """After settlement the wallet lost exactly the rated total and nothing is held."""
    market.serve(20)
    assert settler.drain() == SettledBatch(settled=20, entries=3)
    balance = market.ledger.balance("acme")
    assert (balance.debits, balance.held) == (20 * EVENT_NANOS, 0)
    assert market.ledger.open_holds() == []


def test_window_pays_every_role_once_and_nothing_is_lost(market, settler):
    """Role parts are floors of the split, contributors follow the net scores, the rest is residue: sums are exact."""
    market.serve(3)
    settler.drain()
    assert settler.close_window() == 1
    money = {
        name: market.ledger.account_balance(name, "USD").credits
        for name in ("trainer:tom", "host:hal", "governance:facts", "treasury", "residue")
    }
    total = 3 * EVENT_NANOS
    assert money == {
        "trainer:tom": total * 99_999 // 10**6,
        "host:hal": total // 10,
        "governance:facts": total // 20,
        "treasury": total // 20,
        "residue": money["residue"],
    }
    paid = {
        name: market.ledger.account_balance(f"contributor:{name}", "USD").credits
        for name in ("ada", "bob", "cyd", "dee")
    }
    assert sum(paid.values()) == total * 700_001 // 10**6
    assert sum(paid.values()) + sum(money.values()) == total
    # f = 0.3: ada has all of the positive scores but a sliver, so 0.3 + 0.7 * 0.5
    assert paid["ada"] == pytest.approx(0.65 * sum(paid.values()), abs=2)
    assert paid["bob"] == pytest.approx(0.21 * sum(paid.values()), abs=2)
    tokens = {name: market.ledger.account_balance(f"contributor:{name}", MICROTOKEN).credits for name in paid}
    assert sum(tokens.values()) == 21_000_000
    assert run_checks(market.config, market.ledger).clean


def test_scores_are_netted_over_the_window_before_they_are_cut_at_zero(market, settler):
    """A contributor whose scores cancel within the window earns its declared part only."""
    market.serve(1, scores={"ada": 100, "bob": 100})
    market.serve(1, scores={"ada": 100, "bob": -100})
    settler.drain()
    settler.close_window()
    pot = 2 * EVENT_NANOS * 700_001 // 10**6
    assert market.ledger.account_balance("contributor:bob", "USD").credits == pytest.approx(pot * 0.7 * 0.3, abs=1)


@pytest.mark.parametrize("purpose", ["canary", "lost"])
def test_what_does_not_serve_is_metered_but_free_and_base_only(market, settler, purpose):
    """A canary or a lost answer debits nobody, moves no scores, and its tokens are base-only."""
    market.serve(1, purpose=purpose)
    settler.drain()
    settler.close_window()
    assert market.ledger.balance("acme").debits == 0
    assert market.ledger.account_balance("base-only", MICROTOKEN).credits == 7_000_000
    assert market.ledger.account_balance("contributor:ada", MICROTOKEN).credits == 0
    report = run_checks(market.config, market.ledger)
    assert report.clean
    assert report.totals["metered_tokens"] == 7


def test_base_model_pays_host_and_treasury(market, settler):
    """Requests to the bare base model are metered, base-only, and split by the base model's own terms."""
    market.serve(2, adapter=None)
    settler.drain()
    settler.close_window()
    total = 2 * (7 * 10 + 4 * 1 + 7 * 20)
    assert market.ledger.account_balance("host:hal", "USD").credits == total * 9 // 10
    assert market.ledger.account_balance("base-only", MICROTOKEN).credits == 14_000_000
    assert run_checks(market.config, market.ledger).clean


def test_same_event_again_is_settled_once(market, settler):
    """Duplicates within a batch, across batches and across a restart of the settler change nothing."""
    event = market.serve(1)[0]
    market.journal(event, event)
    assert settler.drain() == SettledBatch(settled=1, duplicates=2, entries=3)
    market.journal(event)
    settler.close()
    again = Settler(market.config)
    assert again.drain() == SettledBatch(duplicates=1)
    again.close()
    assert market.ledger.balance("acme").debits == EVENT_NANOS


def test_same_id_with_another_body_is_quarantined(market, settler):
    """Settled events are final: another body under the same id is put aside, visibly, and `check` says so."""
    event = market.serve(1)[0]
    market.journal(dataclasses.replace(event, completion_tokens=8))
    assert settler.drain() == SettledBatch(settled=1, quarantined=1, entries=3)
    report = run_checks(market.config, market.ledger)
    assert names(report) == ["quarantined"]
    assert "event_conflict" in report.findings[0].detail


def test_event_without_terms_waits_in_quarantine_until_they_arrive(market, settler):
    """An event that cannot be rated is never dropped: it settles once what it names is there."""
    book = PriceBook("USD", 2, Prices(1, 1, 1), Prices(1, 1, 1), {})
    market.serve(1, price_book=book.digest)
    settler.drain()
    assert "price_book_unknown" in run_checks(market.config, market.ledger).findings[0].detail
    assert settler.retry_quarantine() == SettledBatch(quarantined=1)
    market.ledger.put_document("price_book", book.encode())
    assert settler.retry_quarantine() == SettledBatch(settled=1, entries=1)
    assert run_checks(market.config, market.ledger).clean
    assert market.ledger.balance("acme").debits == 18


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"terms": "sha256:" + "0" * 64}, "terms_unknown"),
        ({"scores": {"eve": 1}}, "contributor_unknown"),
        ({"adapter": "sha256:" + "1" * 64}, "terms_mismatch"),
    ],
)
def test_unrateable_event_is_named_in_quarantine(market, settler, changes, reason):
    """Each reason for which an event cannot be settled has a name, and no money moves."""
    market.serve(1, **changes)
    settler.drain()
    assert reason in run_checks(market.config, market.ledger).findings[0].detail
    assert market.ledger.balance("acme").debits == 0


def test_garbage_in_the_journal_is_quarantined(market, settler):
    """Bytes that are no event are kept and reported; the events around them settle."""
    from metering.journal import JournalWriter

    writer = JournalWriter(market.config, "test")
    writer.append(b"{}").result()
    writer.close()
    market.serve(1)
    assert settler.drain() == SettledBatch(settled=1, quarantined=1, entries=3)


def test_expired_hold_is_debited_directly(market, settler):
    """When the hold is gone the wallet pays directly."""
    event = market.serve(1)[0]
    assert market.ledger.expire_holds(now_us() + 10**9) == [event.id]
    settler.drain()
    balance = market.ledger.balance("acme")
    assert (balance.debits, balance.held) == (EVENT_NANOS, 0)
    assert run_checks(market.config, market.ledger).clean


def test_what_a_wallet_cannot_pay_is_owed_and_repaid_by_the_next_credit(market, settler):
    """Usage is never lost and a wallet never negative: the rest is owed, and repaid first by the next top-up."""
    market.ledger.credit("poor-1", "poor", 1000).require()
    event = market.event(tenant="poor")
    market.journal(event)
    settler.drain()
    assert market.ledger.balance("poor").available == 0
    assert market.ledger.account_balance("receivable:poor", "USD").available == 1000 - EVENT_NANOS
    market.ledger.credit("poor-2", "poor", 10_000).require()
    assert market.ledger.balance("poor").available == 10_000 + 1000 - EVENT_NANOS
    assert run_checks(market.config, market.ledger).clean


def test_cost_above_the_hold_takes_the_rest_from_the_wallet(market, settler):
    """A post never exceeds its hold; the excess is debited from what is free in the wallet."""
    event = market.event()
    market.ledger.hold(event.id, "acme", 100, now_us() + 10**9).require()
    market.journal(event)
    settler.drain()
    assert market.ledger.balance("acme").debits == EVENT_NANOS
    assert run_checks(market.config, market.ledger).clean


def test_late_event_goes_to_the_next_window(market, settler):
    """A closed window never changes: an event that arrives later is paid by the next one."""
    market.serve(1)
    settler.drain()
    assert settler.close_window() == 1
    assert settler.close_window() is None
    market.serve(1)
    settler.drain()
    assert settler.close_window() == 2
    assert run_checks(market.config, market.ledger).clean


def test_window_closes_when_its_time_is_up(market, settler, config):
    """`tick` closes the window after window_seconds and not before."""
    market.serve(1)
    settler.tick()
    assert market.ledger.account_balance("host:hal", "USD").credits == 0
    settler.close()
    hasty = Settler(dataclasses.replace(config, window_seconds=0.001))
    hasty.tick()
    hasty.close()
    assert market.ledger.account_balance("host:hal", "USD").credits > 0


def test_second_settler_is_refused_by_name(market, settler):
    """Two settlers on one embedded ledger: the second gets SettlerRunning, and the first goes on."""
    with pytest.raises(SettlerRunning):
        Settler(market.config)
    market.serve(1)
    assert settler.drain().settled == 1


def test_the_running_settler_retries_when_documents_arrive(market, settler):
    """`tick` settles quarantined events by itself once the missing price book is put."""
    book = PriceBook("USD", 2, Prices(1, 1, 1), Prices(1, 1, 1), {})
    market.serve(1, price_book=book.digest)
    settler.tick()
    assert market.ledger.balance("acme").debits == 0
    market.ledger.put_document("price_book", book.encode())
    settler.tick()
    assert market.ledger.balance("acme").debits == 18
