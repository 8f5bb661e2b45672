"""Several settlers on one bus and one PostgreSQL ledger: in any order, however often, each event counts once."""

from __future__ import annotations

import dataclasses
import random

import pytest

from metering import source_nats, store_postgres
from metering.bench.nats_server import NatsServer
from metering.check import run_checks
from metering.errors import EventsUnavailable, LedgerUnavailable, SettlerRunning
from metering.event import encode_event
from metering.ledger import Ledger
from metering.pricebook import PriceBook, Prices
from metering.settler import Settler
from tests.metering.bus import forward, on_bus, publish, settle, settled, wait_for, with_stream
from tests.metering.conftest import TERMS, fresh_ledger_url


@pytest.fixture
def ledger_url(request):
    return fresh_ledger_url("postgresql", request)


@pytest.fixture
def config(config, nats):
    return on_bus(config, nats.url)


@pytest.fixture
def settlers(market, config):
    """Three, as on three machines that share the log's key."""
    opened = [Settler(config) for _ in range(3)]
    yield opened
    for settler in opened:
        settler.close()


def test_whoever_is_left_retries_what_was_put_aside(market, settlers):
    """One settler sequences the prices that an event waits for and is gone; another settles the event."""
    book = PriceBook("USD", 2, Prices(1, 1, 1), Prices(1, 1, 1), {})
    market.journal(market.event(price_book=book.digest))
    forward(market.config)
    first, second, _ = settlers
    wait_for(lambda: first.tick().quarantined > 0)
    second.tick()
    market.ledger.put_document("price_book", book.encode())
    assert first.step().entries == 1
    assert second.tick().settled == 1
    assert run_checks(market.config, market.ledger).clean


def test_duplicates_and_reordering_count_once(market, config, settlers):
    """Forwarded twice, published again in another order past the server's memory, settled by three in turns."""
    events = market.serve(150)
    records = [encode_event(event) for event in events]
    random.Random(3).shuffle(records)
    publish(config, *records[:100])
    market.journal(*events[::-1])
    forward(config)
    done = settle(market.ledger, 150, *settlers)
    wait_for(lambda: not any([bool(settler.step()) for settler in settlers]))
    assert done.settled == 150
    assert [settler.close_window() for settler in settlers] == [1, None, None]
    report = run_checks(config, market.ledger, {event.id: event.completion_tokens for event in events})
    assert report.clean, report.findings
    assert report.totals["metered_requests"] == 150
    assert market.ledger.open_holds() == []


def test_an_event_of_a_stale_settler_goes_to_another(market, config):
    """A settler that reads and does not settle in time: another does, and what the first does later are duplicates."""
    config = dataclasses.replace(config, redeliver_seconds=1.0)
    market.serve(10)
    forward(config)
    stale = Settler(config)
    wait_for(lambda: len(stale.source.read(16)) > 0)
    held = len(stale.source.read(16))
    other = Settler(config)
    assert settle(market.ledger, 10, other).settled == 10
    assert stale.step().duplicates == held
    stale.close()
    other.close()
    assert run_checks(config, market.ledger).clean


def test_a_settler_that_stalls_in_its_turn_is_thrown_out_of_it(market, config, settlers, monkeypatch):
    """Stopped in the middle of a transaction, it holds nobody up for long, and its transaction never happened."""
    monkeypatch.setattr(store_postgres, "STALLED_SECONDS", 1)
    market.serve(5)
    forward(config)
    stalled = Ledger.open(config)
    done: list[int] = []
    with pytest.raises(LedgerUnavailable, match="idle-in-transaction"):
        delete_documents(stalled, lambda: done.append(settle(market.ledger, 5, *settlers).settled))
    stalled.close()
    assert done == [5]
    assert run_checks(config, market.ledger).clean
    assert market.ledger.document(TERMS.digest) is not None


def delete_documents(ledger, stall) -> None:
    """A transaction that must not happen, and that stalls after its first statement."""
    with ledger.store.write() as connection:
        connection.take_turn()
        connection.execute("DELETE FROM documents")
        stall()
        connection.execute("DELETE FROM documents")


def test_a_settler_that_stops_gives_back_what_it_has_not_settled(market, config):
    """Not after redeliver_seconds, at once: the test would otherwise run out of patience."""
    config = dataclasses.replace(config, redeliver_seconds=3600.0)
    market.serve(10)
    forward(config)
    first = Settler(config)
    wait_for(lambda: len(first.source.read(16)) > 0)
    first.close()
    second = Settler(config)
    assert settle(market.ledger, 10, second).settled == 10
    second.close()


def test_what_is_no_event_is_named_in_quarantine_and_stops_nobody(market, config, settlers):
    """Unreadable bytes, and an event that no transaction survives: both are kept, named and reported."""
    events = market.serve(6)
    deadly = encode_event(market.event(scores={"ada": 2**47})).replace(b'"cached_tokens":4', b'"cached_tokens":9')
    publish(config, b"\x00 not JSON", deadly)
    with pytest.MonkeyPatch.context() as patch:
        plant_failure(patch, market)
        forward(config)
        settle(market.ledger, len(events), *settlers)
        wait_for(lambda: len(findings(config, market)) == 2)
        wait_for(lambda: not any([bool(settler.step()) for settler in settlers]))
        assert sorted(name.split(":")[0] for name in reasons(market)) == ["event_invalid", "settlement_failed"]
        assert settlers[0].retry_quarantine().quarantined == 2
        assert findings(config, market) == ["quarantined", "quarantined"]
    assert settlers[0].retry_quarantine().settled == 1  # the cause is gone: it was never dropped
    assert settled(market.ledger) == len(events) + 1


def plant_failure(patch, market) -> None:
    """A fault in rating that one event meets: cached_tokens 9."""
    from metering import settlement

    real = settlement.rate_event

    def rate(event, *rest):
        if event.cached_tokens == 9:
            raise ZeroDivisionError("planted")
        return real(event, *rest)

    patch.setattr(settlement, "rate_event", rate)


def findings(config, market) -> list[str]:
    return [finding.name for finding in run_checks(config, market.ledger).findings]


def reasons(market) -> list[str]:
    with market.ledger.store.read() as connection:
        return [row[0] for row in connection.execute("SELECT reason FROM quarantine")]


def test_a_deleted_consumer_is_made_again(market, config, monkeypatch):
    """Somebody deletes the consumer under a running settler: it notices, says so, and goes on."""
    monkeypatch.setattr(source_nats, "LOOK_SECONDS", 0.1)
    settler = Settler(config)
    with_stream(config, lambda stream: stream.delete_consumer(config.events_stream, "settlers"))
    market.serve(3)
    forward(config)
    assert settle(market.ledger, 3, settler).settled == 3
    settler.close()


def test_without_the_bus_documents_are_still_logged_and_the_settler_says_what_is_wrong(market, config, tmp_path):
    """The bus is killed and comes back, twice: no error but a word; the inbox is sequenced, events come after."""
    server = NatsServer(tmp_path / "mortal")
    server.start()
    config = on_bus(config, server.url)
    settler = Settler(config)
    settler.drain()
    for outage in range(2):
        server.kill()
        wait_for(lambda: bool(settler.source.problems()))
        market.ledger.put_document("contribution", b'{"a":%d}' % outage)
        assert settler.step().entries == 1
        with pytest.raises(EventsUnavailable, match=f"cannot reach nats://127.0.0.1:{server.port}"):
            Settler(config)
        server.start()
        market.serve(4)
        forward(config)
        settle(market.ledger, 4 * (outage + 1), settler)
        assert settler.source.problems() == []
    settler.close()
    server.kill()


def test_a_window_is_closed_by_one_settler_only(market, config, settlers):
    """Two see the same window due; the second finds the next one open, which is not due, and leaves it open."""
    market.serve(1)
    forward(config)
    settle(market.ledger, 1, *settlers)
    seen_us = opened_us(market)
    assert settlers[0].close_window(seen_us) == 1
    market.serve(1)
    forward(config)
    settle(market.ledger, 2, *settlers)
    assert settlers[1].close_window(seen_us) is None
    assert opened_us(market) > seen_us


def opened_us(market) -> int:
    with market.ledger.store.read() as connection:
        return connection.execute("SELECT opened_us FROM windows WHERE closed_us IS NULL")[0][0]


def test_time_of_settlement_runs_forward_over_all_settlers(market, config, settlers, monkeypatch):
    """A settler whose clock is behind takes the time of whoever settled last: closed periods stay closed."""
    from metering import settler as settler_module

    market.serve(1)
    forward(config)
    settle(market.ledger, 1, *settlers)
    monkeypatch.setattr(settler_module, "now_us", lambda: 1)
    market.serve(1)
    forward(config)
    settle(market.ledger, 2, *settlers)
    with market.ledger.store.read() as connection:
        times = [row[0] for row in connection.execute("SELECT time_us FROM log_checkpoints ORDER BY size")]
    assert times == sorted(times)


def test_the_embedded_ledger_has_one_settler_whatever_the_source(config, tmp_path):
    """Two settlers on one embedded ledger stay a named error, also with a bus."""
    embedded = dataclasses.replace(config, ledger_url="", data_dir=tmp_path / "embedded")
    first = Settler(embedded)
    with pytest.raises(SettlerRunning, match="another settler"):
        Settler(embedded)
    first.close()
