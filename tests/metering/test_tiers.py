"""Volume tiers: the month before chooses the price, so that no order, delay or repetition of events changes it."""

from __future__ import annotations

import dataclasses
import json
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.canonical import canonical_bytes
from metering.check import run_checks
from metering.errors import PriceBookInvalid, ReceiptInvalid
from metering.invoice import build_invoice
from metering.pricebook import KINDS, PriceBook, Prices, Tier, decode_price_book, rate_tokens, worst_case_nanos
from metering.receipt import build_receipt, verify_receipt
from metering.settler import Settler

TIERED = Prices(100, 10, 203, {"completion": (Tier(15, 180), Tier(30, 150)), "prompt": (Tier(1_000, 80),)})
BOOK = PriceBook("USD", 2, Prices(10, 1, 20), TIERED, {})


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


OCTOBER, NOVEMBER, DECEMBER = us("2025-10-20T12:00:00"), us("2025-11-20T12:00:00"), us("2025-12-20T12:00:00")

rows = st.lists(st.integers(1, 2**62), min_size=1, max_size=5, unique=True).map(sorted)
tiers = st.dictionaries(
    st.sampled_from(KINDS),
    rows.flatmap(lambda froms: st.tuples(*(st.builds(Tier, st.just(one), st.integers(0, 10**9)) for one in froms))),
)
prices = st.builds(Prices, *[st.integers(0, 10**9)] * 3, tiers)
volumes = st.fixed_dictionaries(dict.fromkeys(KINDS, st.integers(0, 2**62)))
counts = st.integers(0, 2**31 - 1)


@given(prices, volumes, counts, counts, counts)
def test_no_tier_costs_more_than_the_hold(chosen, volume, prompt_tokens, cached, completion_tokens):
    """Whatever the volume, the worst case covers the rating; a book of tiers is what its bytes say."""
    book = PriceBook("USD", 1, chosen, chosen, {})
    cached_tokens = min(cached, prompt_tokens)
    rating = rate_tokens(book, None, prompt_tokens, cached_tokens, completion_tokens, volumes=volume)
    assert rating.total_nanos <= worst_case_nanos(book, None, prompt_tokens, completion_tokens) < 2**63
    assert decode_price_book(book.encode()) == book


@pytest.mark.parametrize(("volume", "price"), [(0, 203), (14, 203), (15, 180), (29, 180), (30, 150), (10**18, 150)])
def test_a_tier_begins_at_its_volume(volume, price):
    """From exactly that many tokens of that kind; the other kinds have tiers of their own."""
    rating = rate_tokens(BOOK, "sha256:x", 11, 4, 7, volumes={"completion": volume, "prompt": 0, "cached": 10**9})
    assert [line.unit_nanos for line in rating.lines] == [100, 10, price]
    assert rate_tokens(BOOK, None, 11, 4, 7, volumes={"completion": volume}).lines[2].unit_nanos == 20


@pytest.mark.parametrize(
    "value",
    [
        {}, [], {"completion": []}, {"tokens": [{"from_tokens": 1, "unit_nanos": 1}]},
        {"completion": [{"from_tokens": 0, "unit_nanos": 1}]},
        {"completion": [{"from_tokens": 1, "unit_nanos": -1}]},
        {"completion": [{"from_tokens": 1, "unit_nanos": 1, "name": "gold"}]},
        {"completion": [{"from_tokens": "1", "unit_nanos": 1}]},
        {"completion": [{"from_tokens": 2, "unit_nanos": 1}, {"from_tokens": 2, "unit_nanos": 0}]},
        {"completion": [{"from_tokens": n + 1, "unit_nanos": 1} for n in range(101)]},
        {"completion": [7]},
    ],
)  # fmt: skip
def test_bad_tiers_are_refused(value):
    """Tiers that overlap, start at nothing, or have other members."""
    good = json.loads(PriceBook("USD", 1, Prices(1, 1, 1), Prices(2, 2, 2), {}).encode())
    with pytest.raises(PriceBookInvalid):
        decode_price_book(canonical_bytes({**good, "base": {**good["base"], "tiers": value}}))


@pytest.fixture
def clock(monkeypatch):
    """The settler's clock, to be set."""
    times = [OCTOBER]
    monkeypatch.setattr("metering.settler.now_us", lambda: times[0])
    return times


@pytest.fixture
def manual(config):
    return dataclasses.replace(config, finalise_invoices=False)


def used(market, config, clock, at_us: int, events: list) -> None:
    clock[0] = at_us
    market.journal(*events)
    settler = Settler(config)
    settler.drain()
    settler.close()


def price_of(market, event) -> int:
    body = verify_receipt(build_receipt(market.ledger, event.id), market.config.log_public_key_path.read_text()).body
    [line] = [line for line in body["rating"]["lines"] if line["kind"] == "completion"]
    return line["unit_nanos"]


def event(market, at_us: int, **changes):
    return market.event(time_unix_us=at_us, price_book=BOOK.digest, **changes)


def test_the_month_before_chooses(market, manual, clock):
    """21 tokens in October: the second tier in November, from the first request on and for all of them."""
    market.ledger.put_document("price_book", BOOK.encode())
    october = [event(market, OCTOBER) for _ in range(3)]
    used(market, manual, clock, OCTOBER, october)
    november = [event(market, NOVEMBER) for _ in range(6)]
    used(market, manual, clock, NOVEMBER, november)
    december = [event(market, DECEMBER)]
    used(market, manual, clock, DECEMBER, december)
    assert {price_of(market, one) for one in october} == {203}
    assert {price_of(market, one) for one in november} == {180}
    assert {price_of(market, one) for one in december} == {150}
    [line] = [one for one in build_invoice(market.ledger, "acme", "2025-11")["lines"] if one["kind"] == "completion"]
    assert (line["unit_nanos"], line["quantity"], line["amount_nanos"]) == (180, 42, 7560)
    body = json.loads(build_receipt(market.ledger, november[0].id))["body"]
    assert body["rating"]["volumes"] == {"prompt": 21, "cached": 12, "completion": 21}
    assert [one for one in run_checks(manual, market.ledger).findings if one.name != "metered_not_generated"] == []


def test_a_late_event_has_the_price_of_its_own_month(market, manual, clock):
    """An October request that is settled in November costs what it cost in October, and counts for December."""
    market.ledger.put_document("price_book", BOOK.encode())
    used(market, manual, clock, OCTOBER, [event(market, OCTOBER) for _ in range(3)])
    late = event(market, OCTOBER)
    used(market, manual, clock, NOVEMBER, [late, event(market, NOVEMBER)])
    assert price_of(market, late) == 203
    newer = event(market, DECEMBER)
    used(market, manual, clock, DECEMBER, [newer])
    assert price_of(market, newer) == 203  # 14 tokens were settled in November, the tier begins at 15


def test_a_gateway_whose_clock_is_ahead_gains_nothing(market, manual, clock):
    """An event of next month settled in this one is rated by the month before this one, which is over."""
    market.ledger.put_document("price_book", BOOK.encode())
    early = [event(market, NOVEMBER) for _ in range(4)]
    used(market, manual, clock, OCTOBER, early)
    assert {price_of(market, one) for one in early} == {203}


@pytest.mark.parametrize("seed", range(4))
def test_order_and_repetition_change_nothing(market, manual, clock, seed):
    """November's events in any order, some twice, over any number of batches: the same price for each."""
    market.ledger.put_document("price_book", BOOK.encode())
    used(market, manual, clock, OCTOBER, [event(market, OCTOBER) for _ in range(3)])
    dice = random.Random(seed)
    events = [event(market, NOVEMBER, completion_tokens=n + 1, scores={}) for n in range(12)]
    sent = dice.sample([*events, *dice.sample(events, 5)], 17)
    cut = dice.randrange(1, 16)
    for part in (sent[:cut], sent[cut:]):
        used(market, manual, clock, NOVEMBER, part)
    assert {price_of(market, one) for one in events} == {180}
    assert build_invoice(market.ledger, "acme", "2025-11")["subtotal_nanos"] == 12 * (700 + 40) + 78 * 180


def test_other_tenants_have_volumes_of_their_own(market, manual, clock):
    """What acme used gives beta no better price."""
    market.ledger.put_document("price_book", BOOK.encode())
    market.ledger.credit("topup-2", "beta", 10**12).require()
    used(market, manual, clock, OCTOBER, [event(market, OCTOBER) for _ in range(6)])
    ours, theirs = event(market, NOVEMBER), event(market, NOVEMBER, tenant="beta")
    used(market, manual, clock, NOVEMBER, [ours, theirs])
    assert (price_of(market, ours), price_of(market, theirs)) == (150, 203)


def test_check_finds_a_tier_that_was_not_reached(market, manual, clock, monkeypatch):
    """A settler that counts a volume wrongly signs what it counted; `check` adds the volumes up from the receipts."""
    market.ledger.put_document("price_book", BOOK.encode())
    used(market, manual, clock, OCTOBER, [event(market, OCTOBER) for _ in range(3)])
    more = {"prompt": 21, "cached": 12, "completion": 99}
    monkeypatch.setattr("metering.settlement.read_volumes", lambda *_: more)
    used(market, manual, clock, NOVEMBER, [event(market, NOVEMBER)])
    [found] = run_checks(manual, market.ledger).findings
    assert (found.name, "[21, 12, 99] of 2025-10, acme used [21, 12, 21]" in found.detail) == (
        "volumes_not_usage",
        True,
    )


def test_a_forged_volume_is_found(market, manual, clock):
    """It is a member of the body that the log signed."""
    market.ledger.put_document("price_book", BOOK.encode())
    one = event(market, OCTOBER)
    used(market, manual, clock, OCTOBER, [one])
    key = manual.log_public_key_path.read_text()
    receipt = json.loads(build_receipt(market.ledger, one.id))
    receipt["body"]["rating"]["volumes"]["completion"] = 99
    with pytest.raises(ReceiptInvalid):
        verify_receipt(canonical_bytes(receipt), key)
