"""Settings are checked when they are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from metering.config import MeteringConfig


def test_the_environment_is_read_once(tmp_path):
    """The documented variables are honoured; the files lie under the data directory."""
    config = MeteringConfig.from_environment(
        tmp_path,
        {
            "OPENLEDGER_LEDGER": "postgresql://host/db",
            "OPENLEDGER_CURRENCY": "EUR",
            "OPENLEDGER_LOG_ORIGIN": "example.com/log",
            "OPENLEDGER_WINDOW_SECONDS": "2.5",
            "OPENLEDGER_EVENTS": "nats://a:4222,tls://user:secret@b",
        },
    )
    assert config.events_urls == ["nats://a:4222", "tls://user:secret@b"]
    assert config.many_settlers
    assert (config.ledger_url, config.currency) == ("postgresql://host/db", "EUR")
    assert (config.log_origin, config.window_seconds) == ("example.com/log", 2.5)
    assert config.journal_dir == tmp_path / "journal"


def test_invoices_are_finalised_by_themselves_unless_told_otherwise(tmp_path):
    """`auto` by default, `manual` to leave it to the operator, and no other word."""
    assert MeteringConfig.from_environment(tmp_path, {}).finalise_invoices
    assert not MeteringConfig.from_environment(tmp_path, {"OPENLEDGER_INVOICES": "manual"}).finalise_invoices
    with pytest.raises(ValueError, match="OPENLEDGER_INVOICES"):
        MeteringConfig.from_environment(tmp_path, {"OPENLEDGER_INVOICES": "never"})


@pytest.mark.parametrize(
    "setting",
    [
        {"segment_bytes": 1024}, {"min_free_bytes": 0}, {"window_seconds": 0}, {"batch_size": -1},
        {"currency": "usd"}, {"currency": "EURO"}, {"ledger_url": "mysql://host/db"}, {"redeliver_seconds": 0},
        {"events_url": "kafka://host"}, {"events_url": "nats://"}, {"events_url": "nats://host:port"},
        {"events_url": "nats://host:4222,host"}, {"events_url": "nats://host/stream"}, {"events_stream": "a.b"},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_settings_are_refused(setting):
    """A value that cannot work is a ValueError at start, not a surprise later."""
    with pytest.raises(ValueError, match=next(iter(setting))):
        MeteringConfig(data_dir=Path("data"), **setting)
