"""Settings of the metering package, read from the environment once and passed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
POSITIVE = (
    "min_free_bytes", "backlog_bytes", "window_seconds", "batch_size", "poll_seconds", "hold_seconds",
    "redeliver_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MeteringConfig:
    """Where the meter keeps its files and how it batches. Lengths in bytes, times in seconds.

    Raises ValueError at construction for values that cannot work.
    """

    data_dir: Path
    ledger_url: str = ""  # empty: the embedded SQLite file under data_dir; postgresql://... : a server
    events_url: str = ""  # empty: one settler tails the journal; nats://host:port[,nats://...] : JetStream
    events_stream: str = "openledger"  # the JetStream stream of this deployment
    redeliver_seconds: float = 30.0  # an event unsettled for so long goes to another settler
    currency: str = "USD"
    log_origin: str = "openledger.local/log"
    segment_bytes: int = 16 * 1024 * 1024
    min_free_bytes: int = 256 * 1024 * 1024  # admission stops below this
    backlog_bytes: int = 8 * 1024 * 1024  # appended but not yet durable
    window_seconds: float = 60.0
    batch_size: int = 1024  # events settled in one transaction
    poll_seconds: float = 0.05
    hold_seconds: float = 3600.0
    journal_retention_seconds: float = 86_400.0  # settled segments are kept this long
    finalise_invoices: bool = True  # at the end of each month; else only by command

    def __post_init__(self) -> None:
        if self.segment_bytes < 64 * 1024:
            raise ValueError("segment_bytes must be at least 65536")
        for name in POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if not self.currency.isascii() or not self.currency.isupper() or len(self.currency) != 3:
            raise ValueError("currency must be three capital letters (ISO 4217)")
        if self.ledger_url and not self.ledger_url.startswith(("postgresql://", "postgres://")):
            raise ValueError("ledger_url must be empty or postgresql://...")
        for url in self.events_urls:
            _check_events_url(url)
        if not STREAM_NAME.match(self.events_stream):
            raise ValueError(f"events_stream must match {STREAM_NAME.pattern}")

    @property
    def events_urls(self) -> list[str]:
        """The servers of one NATS cluster; none for the embedded default."""
        return self.events_url.split(",") if self.events_url else []

    @property
    def many_settlers(self) -> bool:
        """True when any number of settlers may settle: events come from a bus, the ledger is a server."""
        return bool(self.events_url and self.ledger_url)

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"

    @property
    def ledger_path(self) -> Path:
        return self.data_dir / "ledger.db"

    @property
    def ledger_mark(self) -> Path:
        """Says that the ledger is on a server."""
        return self.data_dir / "ledger.server"

    @property
    def log_key_path(self) -> Path:
        return self.data_dir / "log.key"

    @property
    def log_public_key_path(self) -> Path:
        return self.data_dir / "log.pub"

    @classmethod
    def from_environment(cls, data_dir: Path, environment: Mapping[str, str]) -> MeteringConfig:
        """From OPENLEDGER_LEDGER, _EVENTS, _EVENTS_STREAM, _REDELIVER_SECONDS, _CURRENCY, _LOG_ORIGIN, _WINDOW_SECONDS
        and _INVOICES (`auto` or `manual`); the others keep their default. Raises ValueError."""
        invoices = environment.get("OPENLEDGER_INVOICES", "auto")
        if invoices not in ("auto", "manual"):
            raise ValueError(f"OPENLEDGER_INVOICES is auto or manual, not {invoices!r}")
        return cls(
            data_dir=data_dir,
            ledger_url=environment.get("OPENLEDGER_LEDGER", ""),
            events_url=environment.get("OPENLEDGER_EVENTS", ""),
            events_stream=environment.get("OPENLEDGER_EVENTS_STREAM", "openledger"),
            redeliver_seconds=float(environment.get("OPENLEDGER_REDELIVER_SECONDS", "30")),
            currency=environment.get("OPENLEDGER_CURRENCY", "USD"),
            log_origin=environment.get("OPENLEDGER_LOG_ORIGIN", "openledger.local/log"),
            window_seconds=float(environment.get("OPENLEDGER_WINDOW_SECONDS", "60")),
            finalise_invoices=invoices == "auto",
        )


def _check_events_url(url: str) -> None:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("nats", "tls") or not parts.hostname or port == 0 or parts.path or parts.query:
        # the URL itself may carry a password
        raise ValueError("events_url must be empty or nats://host:port (tls:// for TLS; several separated by commas)")
