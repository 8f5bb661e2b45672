"""The forwarder on a real nats-server: nothing is lost between the journal and the ledger, whatever the bus forgets."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from metering.check import run_checks
from metering.errors import EventsMisconfigured, EventsUnavailable, ForwarderRunning
from metering.event import encode_event
from metering.forwarder import Forwarder, message_id
from metering.forwarder_state import FILE
from metering.journal import JournalWriter
from metering.nats_stream import connected, ensure_stream
from metering.settler import Settler
from tests.metering.bus import forward, on_bus, publish, settle, wait_for, with_stream

EVENTS = 200


@pytest.fixture
def config(config, nats):
    return on_bus(config, nats.url, journal_retention_seconds=0.0)


def messages(config) -> int:
    return with_stream(config, lambda stream: stream.stream_info(config.events_stream)).state.messages


def segments(config) -> list[str]:
    return sorted(path.name for path in config.journal_dir.glob("*.seg"))


def test_every_record_is_published_once_and_the_offset_is_kept(market, config):
    """A second run publishes only what came since."""
    market.serve(EVENTS)
    assert forward(config).published == messages(config) == EVENTS
    market.serve(1)
    again = forward(config)
    assert (again.published, again.duplicates) == (EVENTS + 1, 0)
    assert messages(config) == EVENTS + 1


def test_a_segment_stays_until_its_events_are_settled(market, config):
    """Published is not settled: without retention, segments go only when settlers have acknowledged all of them."""
    market.serve(EVENTS)
    before = segments(config)
    forward(config)
    assert segments(config) == before
    settler = Settler(config)
    settle(market.ledger, EVENTS, settler)
    settler.close()
    wait_for(lambda: forward(config).unsettled == 0)
    assert segments(config) == []
    assert run_checks(config, market.ledger).totals["unsettled_records"] == 0


def test_a_lost_offset_costs_only_work(market, config):
    """Everything is published again; the server drops what it remembers, the ledger the rest."""
    market.serve(EVENTS)
    forward(config)
    (config.journal_dir / FILE).write_text("{")  # torn by a power cut
    assert forward(config).duplicates == messages(config) == EVENTS


@pytest.mark.parametrize("disaster", ["stream deleted", "disk lost", "stream replaced under the forwarder"])
def test_what_the_bus_loses_is_published_again(market, config, nats, disaster):
    """Some events settled, the rest lost with the stream: the journal still has them, and each is settled once."""
    market.serve(EVENTS)
    forward(config)
    settler = Settler(config)
    settle(market.ledger, 1, settler)
    settler.close()
    if disaster == "disk lost":
        nats.lose_everything()
    else:
        with_stream(config, lambda stream: stream.delete_stream(config.events_stream))
    if disaster == "stream replaced under the forwarder":
        settler = Settler(config)  # makes the stream again
        settler.close()
    market.serve(1)
    forward(config)
    settler = Settler(config)
    settle(market.ledger, EVENTS + 1, settler)
    settler.close()
    assert run_checks(config, market.ledger).clean


def test_a_replaced_stream_is_noticed_by_its_sequence_numbers(market, config):
    """Even on a connection that never broke: the server counts from one again."""

    async def scenario() -> None:
        forwarder = Forwarder(config)
        try:
            async with connected(config, "forwarder") as client:
                await forwarder.attach(client)
                market.serve(EVENTS)
                while await forwarder.publish():
                    pass
                stream = client.jetstream()
                await stream.delete_stream(config.events_stream)
                await ensure_stream(stream, config)
                with pytest.raises(EventsUnavailable, match="was replaced"):
                    await forwarder.tidy()  # the new stream's acknowledgements say nothing of ours
                market.serve(1)
                with pytest.raises(EventsUnavailable, match="was replaced"):
                    await forwarder.publish()
                await forwarder.attach(client)
                while await forwarder.publish():
                    pass
        finally:
            forwarder.close()

    asyncio.run(scenario())
    assert messages(config) == EVENTS + 1


def test_another_body_under_one_id_reaches_the_ledger(market, config):
    """The server drops the same event again and nothing else: a conflict is named by the ledger, not swallowed."""
    event = market.serve(1)[0]
    other = dataclasses.replace(event, completion_tokens=event.completion_tokens + 1)
    market.journal(event, other)
    assert forward(config).duplicates == 1
    settler = Settler(config)
    settle(market.ledger, 1, settler)
    wait_for(lambda: bool(settler.step()) or bool(run_checks(config, market.ledger).findings))
    settler.close()
    report = run_checks(config, market.ledger)
    assert [finding.name for finding in report.findings] == ["quarantined"]
    assert "event_conflict" in report.findings[0].detail


def test_message_ids_carry_event_ids(market):
    """`<event id>/<digest>`; bytes that are no event, or whose id is not ours, are known by their digest alone."""
    event = market.event()
    name, _, body = message_id(encode_event(event)).partition("/")
    assert (name, len(body)) == (event.id, 32)
    for garbage in (b"{}", b"\xff", b'{"id":"a\\r\\nInjected: header"}', b'{"id":7}'):
        assert len(message_id(garbage)) == 32


def test_the_server_remembers_two_minutes_and_the_ledger_forever(market, config):
    """The same events past the server's memory are delivered again, and settled once."""
    events = market.serve(20)
    forward(config)
    publish(config, *[encode_event(event) for event in events])
    settler = Settler(config)
    settle(market.ledger, 20, settler)
    wait_for(lambda: settler.step().duplicates > 0)
    settler.close()
    report = run_checks(config, market.ledger)
    assert report.clean
    assert report.totals["metered_requests"] == 20


def test_a_second_forwarder_is_refused_by_name(config):
    """One journal, one forwarder."""
    first = Forwarder(config)
    with pytest.raises(ForwarderRunning, match="another forwarder"):
        Forwarder(config)
    first.close()
    Forwarder(config).close()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"retention": RetentionPolicy.LIMITS}, "retention"),
        ({"storage": StorageType.MEMORY, "retention": RetentionPolicy.WORK_QUEUE}, "storage"),
        ({"retention": RetentionPolicy.WORK_QUEUE, "discard": "new", "max_age": 60.0}, "max_age"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stream_that_could_lose_events_is_refused(config, wrong, name):
    """A stream of that name with other rules is not used, and the message says which rule."""
    made = StreamConfig(name=config.events_stream, subjects=[f"{config.events_stream}.usage"], **wrong)
    with_stream(config, lambda stream: stream.add_stream(made))
    with pytest.raises(EventsMisconfigured, match=name):
        forward(config)


def test_a_record_larger_than_the_server_takes_is_named_and_kept(market, config):
    """What came before it goes through, the journal keeps it, the failure says what to raise."""
    large = dataclasses.replace(config, segment_bytes=4 * 1024 * 1024)
    market.serve(3)
    writer = JournalWriter(large, "test")
    writer.append(bytes(1_100_000)).result()
    writer.close()
    with pytest.raises(EventsUnavailable, match="1100000 bytes, the server's max_payload is 1048576"):
        forward(config)
    assert messages(config) == 3
    assert len(segments(config)) == 2


def test_a_full_stream_refuses_and_nothing_is_dropped(market, config):
    """The operator's limit on the stream stops the forwarder, not the events: they wait in the journal."""
    forward(config)
    info = with_stream(config, lambda stream: stream.stream_info(config.events_stream))
    info.config.max_msgs = 10
    with_stream(config, lambda stream: stream.update_stream(info.config))
    market.serve(30)
    with pytest.raises(EventsUnavailable, match="maximum messages exceeded"):
        forward(config)
    settler = Settler(config)
    settle(market.ledger, 10, settler)
    info.config.max_msgs = -1
    with_stream(config, lambda stream: stream.update_stream(info.config))
    forward(config)
    settle(market.ledger, 30, settler)
    settler.close()
    assert run_checks(config, market.ledger).clean
