"""Every named status of the ledger, as a table; balances after accepted commands; replay and concurrency."""

from __future__ import annotations

import threading

import pytest

from metering.errors import LedgerRefused, SchemaUnknown
from metering.ledger import MICROTOKEN, Ledger, now_us
from metering.postings import Transfer
from metering.status import Status

LATER = 4_000_000_000_000_000  # microseconds, in the year 2096


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same tests on both stores."""
    return every_store


@pytest.fixture
def bank(ledger):
    """acme has 1,000 nanos of which 100 are held by `held`; `done`, `gone` and `late` are ended holds."""
    ledger.credit("topup", "acme", 1_000).require()
    ledger.open_account("treasury", "USD", overdraft=False).require()
    ledger.open_account("treasury", MICROTOKEN, overdraft=False).require()
    ledger.open_account("points", MICROTOKEN, overdraft=True).require()
    for name in ("done", "gone"):
        ledger.hold(name, "acme", 50, LATER).require()
    ledger.post("done", "pay-done", 50, "treasury").require()
    ledger.void("gone").require()
    ledger.hold("late", "acme", 50, now_us() + 10**7).require()
    assert ledger.expire_holds(now_us() + 2 * 10**7) == ["late"]
    ledger.hold("held", "acme", 100, LATER).require()
    return ledger


def move(identifier="t-1", debit="client:acme", credit="treasury", unit="USD", amount=10, code="test") -> Transfer:
    return Transfer(identifier, debit, credit, unit, amount, code)


TRANSFERS = [
    (move(), Status.OK),
    (move(amount=850), Status.OK),
    (move(identifier=""), Status.ID_INVALID),
    (move(identifier="a b"), Status.ID_INVALID),
    (move(amount=1.0), Status.AMOUNT_NOT_INTEGER),
    (move(amount=True), Status.AMOUNT_NOT_INTEGER),
    (move(amount="10"), Status.AMOUNT_NOT_INTEGER),
    (move(amount=0), Status.AMOUNT_NOT_POSITIVE),
    (move(amount=-5), Status.AMOUNT_NOT_POSITIVE),
    (move(amount=2**62 + 1), Status.AMOUNT_TOO_LARGE),
    (move(unit="EUR"), Status.UNIT_UNKNOWN),
    (move(credit="Treasury"), Status.ACCOUNT_NAME_INVALID),
    (move(credit="client:acme"), Status.ACCOUNTS_SAME),
    (move(identifier="topup"), Status.EXISTS_WITH_OTHER_BODY),
    (move(debit="client:nobody"), Status.DEBIT_ACCOUNT_UNKNOWN),
    (move(debit="points"), Status.DEBIT_ACCOUNT_OTHER_UNIT),
    (move(credit="nobody"), Status.CREDIT_ACCOUNT_UNKNOWN),
    (move(credit="points"), Status.CREDIT_ACCOUNT_OTHER_UNIT),
    (move(amount=851), Status.INSUFFICIENT_CREDIT),
    # precedence: the first of two faults is named
    (move(identifier="", amount=1.0), Status.ID_INVALID),
    (move(amount=-1, unit="EUR"), Status.AMOUNT_NOT_POSITIVE),
    (move(unit="EUR", credit="client:acme"), Status.UNIT_UNKNOWN),
    (move(identifier="topup", debit="client:nobody"), Status.EXISTS_WITH_OTHER_BODY),
    (move(debit="client:nobody", credit="nobody"), Status.DEBIT_ACCOUNT_UNKNOWN),
    (move(credit="nobody", amount=10_000), Status.CREDIT_ACCOUNT_UNKNOWN),
]


@pytest.mark.parametrize(("transfer", "expected"), TRANSFERS, ids=lambda value: str(value)[:60])
def test_transfer_statuses(bank, transfer, expected):
    """One named status per invalid transfer, in the documented order; only OK moves money."""
    before = bank.balance("acme").available
    assert bank.transfer(transfer) is expected
    moved = transfer.amount if expected is Status.OK else 0
    assert bank.balance("acme").available == before - moved


HOLDS = [
    (("h-1", "acme", 850, LATER), Status.OK),
    (("h-1", "acme", 0, LATER), Status.OK),
    (("", "acme", 1, LATER), Status.ID_INVALID),
    (("h-1", "acme", 1.5, LATER), Status.AMOUNT_NOT_INTEGER),
    (("h-1", "acme", -1, LATER), Status.AMOUNT_NOT_POSITIVE),
    (("h-1", "acme", 2**63, LATER), Status.AMOUNT_TOO_LARGE),
    (("h-1", "acme", 1, 5), Status.EXPIRY_NOT_IN_FUTURE),
    (("held", "acme", 100, LATER + 1), Status.EXISTS),
    (("held", "acme", 101, LATER), Status.EXISTS_WITH_OTHER_BODY),
    (("held", "other", 100, LATER), Status.EXISTS_WITH_OTHER_BODY),
    (("h-1", "nobody", 1, LATER), Status.DEBIT_ACCOUNT_UNKNOWN),
    (("h-1", "acme", 851, LATER), Status.INSUFFICIENT_CREDIT),
]


@pytest.mark.parametrize(("arguments", "expected"), HOLDS, ids=lambda value: str(value)[:60])
def test_hold_statuses(bank, arguments, expected):
    """A hold sets aside what is free, no more; a replay changes nothing."""
    before = bank.balance("acme").held
    assert bank.hold(*arguments) is expected
    assert bank.balance("acme").held == before + (arguments[2] if expected is Status.OK else 0)


POSTS = [
    (("held", "p-1", 100, "treasury"), Status.OK),
    (("held", "p-1", 40, "treasury"), Status.OK),
    (("held", "", 40, "treasury"), Status.ID_INVALID),
    (("held", "p-1", 0, "treasury"), Status.AMOUNT_NOT_POSITIVE),
    (("nothing", "p-1", 40, "treasury"), Status.HOLD_UNKNOWN),
    (("done", "pay-done", 50, "treasury"), Status.EXISTS),
    (("done", "pay-done", 40, "treasury"), Status.EXISTS_WITH_OTHER_BODY),
    (("done", "p-1", 40, "treasury"), Status.HOLD_ALREADY_POSTED),
    (("gone", "p-1", 40, "treasury"), Status.HOLD_ALREADY_VOIDED),
    (("late", "p-1", 40, "treasury"), Status.HOLD_EXPIRED),
    (("held", "p-1", 40, "nobody"), Status.CREDIT_ACCOUNT_UNKNOWN),
    (("held", "p-1", 40, "points"), Status.CREDIT_ACCOUNT_OTHER_UNIT),
    (("held", "p-1", 101, "treasury"), Status.POST_EXCEEDS_HOLD),
]


@pytest.mark.parametrize(("arguments", "expected"), POSTS, ids=lambda value: str(value)[:60])
def test_post_statuses(bank, arguments, expected):
    """A post pays at most its hold, once, and releases the rest of it."""
    before = bank.balance("acme")
    assert bank.post(*arguments) is expected
    after = bank.balance("acme")
    if expected is Status.OK:
        assert (after.debits - before.debits, after.held) == (arguments[2], 0)
    else:
        assert after == before


@pytest.mark.parametrize(
    ("hold", "expected"),
    [
        ("held", Status.OK),
        ("gone", Status.EXISTS),
        ("done", Status.HOLD_ALREADY_POSTED),
        ("late", Status.HOLD_EXPIRED),
        ("nothing", Status.HOLD_UNKNOWN),
    ],
)
def test_void_statuses(bank, hold, expected):
    """Only a pending hold can be voided; voiding twice is a replay."""
    assert bank.void(hold) is expected


def test_replayed_credit_is_applied_once(ledger):
    """The same top-up again is EXISTS; another amount under its id is refused by name."""
    assert ledger.credit("t", "acme", 5) is Status.OK
    assert ledger.credit("t", "acme", 5) is Status.EXISTS
    assert ledger.credit("t", "acme", 6) is Status.EXISTS_WITH_OTHER_BODY
    assert ledger.balance("acme").available == 5


def test_balances_stay_within_64_bits(ledger):
    """A credit that would leave 64 bits is BALANCE_OVERFLOW, and nothing moves."""
    assert ledger.credit("t-1", "acme", 2**62) is Status.OK
    assert ledger.credit("t-2", "acme", 2**62) is Status.BALANCE_OVERFLOW
    assert ledger.balance("acme").credits == 2**62


def test_concurrent_holds_never_exceed_the_credit(config, ledger):
    """Budgets cannot be beaten by concurrency: of 40 holds at once, exactly those that fit are granted."""
    ledger.credit("t", "acme", 1_000).require()
    outcomes: list[Status] = []

    def worker(number: int) -> None:
        for i in range(10):
            outcomes.append(ledger.hold(f"h-{number}-{i}", "acme", 60, LATER))

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(Status.OK) == 16
    assert outcomes.count(Status.INSUFFICIENT_CREDIT) == 24
    assert ledger.balance("acme").available == 40


def test_refusals_can_be_raised(ledger):
    """Status.require turns a refusal into LedgerRefused that carries the status."""
    with pytest.raises(LedgerRefused) as refused:
        ledger.hold("h", "nobody", 1, LATER).require()
    assert refused.value.status is Status.DEBIT_ACCOUNT_UNKNOWN


def test_a_newer_schema_is_refused(config, ledger):
    """An older release does not touch a database that a newer one wrote."""
    with ledger.store.write() as connection:
        connection.execute("INSERT INTO schema_version (version) VALUES (99)")
    with pytest.raises(SchemaUnknown):
        Ledger.open(config)


def test_documents_are_stored_and_logged_once(ledger):
    """A document is found by its digest; the same bytes again make no second log entry."""
    name = ledger.put_document("contribution", b'{"a":1}')
    assert ledger.put_document("contribution", b'{"a":1}') == name
    assert ledger.document(name) == b'{"a":1}'
    with ledger.store.read() as connection:
        assert connection.execute("SELECT count(*) FROM log_inbox") == [(1,)]
