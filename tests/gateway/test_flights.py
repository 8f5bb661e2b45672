"""Requests in flight survive their worker."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.flights import Flights, Ticket

TICKET = Ticket(
    request_id="req_1",
    account="alice",
    key_id="key_1",
    endpoint="/v1/completions",
    model="m",
    base="sha256:0",
    adapter=None,
    head=None,
    terms="sha256:1",
    price_book="sha256:2",
    prompt_tokens=3,
    reserved_tokens=19,
    salt="00" * 32,
    started_us=1,
)


@pytest.fixture
def flights(tmp_path: Path) -> Flights:
    return Flights(tmp_path)


def test_a_living_workers_flights_are_nobody_elses(flights: Flights, tmp_path: Path) -> None:
    """Another worker of the same gateway leaves them alone."""
    flights.begin(TICKET)
    assert Flights(tmp_path).orphans() == []
    assert flights.is_open("req_1")


def test_a_killed_workers_flights_are_orphans(tmp_path: Path) -> None:
    """kill -9 releases the worker's lock; ticket and sealed record are there for whoever comes next."""
    code = f"""
import os, signal
from pathlib import Path
from gateway.flights import Flights, Ticket
flights = Flights(Path({str(tmp_path)!r}))
flights.begin(Ticket(**{TICKET.__dict__!r}))
flights.begin(Ticket(**{{**{TICKET.__dict__!r}, "request_id": "req_2"}}))
flights.seal("req_2", b"record")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    first, second = Flights(tmp_path).orphans()
    assert (first.ticket, first.record) == (TICKET, None)
    assert (second.ticket, second.record) == (replace(TICKET, request_id="req_2"), b"record")


def test_an_abandoned_flight_is_an_orphan_of_a_living_worker(flights: Flights) -> None:
    """A request whose event could not be written waits for recovery."""
    flights.begin(TICKET)
    flights.abandon("req_1")
    assert [flight.ticket for flight in flights.orphans()] == [TICKET]


def test_an_ended_flight_is_gone(flights: Flights) -> None:
    """Nothing of it is left."""
    flights.begin(TICKET)
    flights.end("req_1")
    assert not flights.is_open("req_1")
    assert len(flights) == 0


def test_one_worker_recovers_at_a_time(flights: Flights, tmp_path: Path) -> None:
    """The second finds the first at it."""
    with flights.recovering() as first, Flights(tmp_path).recovering() as second:
        assert (first, second) == (True, False)
    with flights.recovering() as again:
        assert again
