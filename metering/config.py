"""Settings of the metering package, read from the environment once and passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MeteringConfig:
    """Where the meter keeps its files and how it batches. Lengths in bytes, times in seconds.

    Raises ValueError at construction for values that cannot work.
    """

    data_dir: Path
    ledger_url: str = ""  # empty: the embedded SQLite file under data_dir; postgresql://... : a server
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

    def __post_init__(self) -> None:
        if self.segment_bytes < 64 * 1024:
            raise ValueError("segment_bytes must be at least 65536")
        for name in ("min_free_bytes", "backlog_bytes", "window_seconds", "batch_size", "poll_seconds", "hold_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if not self.currency.isascii() or not self.currency.isupper() or len(self.currency) != 3:
            raise ValueError("currency must be three capital letters (ISO 4217)")
        if self.ledger_url and not self.ledger_url.startswith(("postgresql://", "postgres://")):
            raise ValueError("ledger_url must be empty or postgresql://...")

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"

    @property
    def ledger_path(self) -> Path:
        return self.data_dir / "ledger.db"

    @property
    def log_key_path(self) -> Path:
        return self.data_dir / "log.key"

    @property
    def log_public_key_path(self) -> Path:
        return self.data_dir / "log.pub"

    @classmethod
    def from_environment(cls, data_dir: Path, environment: Mapping[str, str]) -> MeteringConfig:
        """From OPENLEDGER_LEDGER, _CURRENCY, _LOG_ORIGIN and _WINDOW_SECONDS; the others keep their default."""
        return cls(
            data_dir=data_dir,
            ledger_url=environment.get("OPENLEDGER_LEDGER", ""),
            currency=environment.get("OPENLEDGER_CURRENCY", "USD"),
            log_origin=environment.get("OPENLEDGER_LOG_ORIGIN", "openledger.local/log"),
            window_seconds=float(environment.get("OPENLEDGER_WINDOW_SECONDS", "60")),
        )
