"""The ledger's benchmark measures what it says, at any size."""

from __future__ import annotations

import dataclasses

from metering.bench.bus import bus_rates
from metering.bench.cases import invoice_seconds, memory_growth, proof_latencies, request_latencies, settlement_rates
from metering.check import run_checks
from metering.ledger import Ledger
from tests.metering.conftest import fresh_ledger_url


def test_the_settled_events_of_a_benchmark_add_up(config, tmp_path):
    """What was timed is a clean ledger: every event settled once, each hold posted, and proofs that verify."""
    config = dataclasses.replace(config, segment_bytes=2**20)
    rivals = dataclasses.replace(config, data_dir=tmp_path / "rivals")
    rates = settlement_rates(config, rivals, 60, 2)
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())
    ledger = Ledger.open(config)
    report = run_checks(config, ledger)
    assert report.clean
    assert report.totals["metered_requests"] == 120
    assert ledger.open_holds() == []
    assert proof_latencies(ledger, config, 120)["receipt_us"] > 0
    assert request_latencies(ledger, config)["hold_and_event_us"] > 0
    assert invoice_seconds(ledger, 300) > 0
    ledger.close()


def test_memory_is_read(config):
    """Twice a round, by the events settled so far: now, and the most there was."""
    sizes = memory_growth(dataclasses.replace(config, segment_bytes=2**20), 20, 2)
    assert list(sizes) == [20, 40]
    assert all(0 < size["now"] <= size["peak"] for size in sizes.values())
    assert sizes[20]["peak"] <= sizes[40]["peak"]


def test_what_went_over_the_bus_is_settled_once(config, tmp_path, request):
    """Rates of forwarder, one and two settlers come from clean books."""
    config = dataclasses.replace(config, segment_bytes=2**20, ledger_url=fresh_ledger_url("postgresql", request))
    rates = bus_rates(config, tmp_path / "nats", 40, 1)
    assert {name: len(values) for name, values in rates.items()} == {"forwarded": 2, "settlers_1": 1, "settlers_2": 1}
    ledger = Ledger.open(config)
    report = run_checks(config, ledger)
    assert report.clean
    assert report.totals["metered_requests"] == 80
    ledger.close()
