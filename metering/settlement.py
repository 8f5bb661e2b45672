"""Settlement: journal to rating to ledger to log, exactly once."""

from __future__ import annotations

from dataclasses import dataclass

from metering.config import MeteringConfig


@dataclass(frozen=True, slots=True)
class SettledBatch:
    """What one transaction did: counts of journal records by outcome, and log entries sequenced from the inbox."""

    settled: int
    duplicates: int
    quarantined: int
    entries: int


class Settler:
    """The only writer of usage transfers, windows and log leaves. One per embedded ledger."""

    def __init__(self, config: MeteringConfig) -> None:
        """Take the settler's lock (SettlerRunning when another has it) and the log's key (made when missing)."""
        raise NotImplementedError

    def step(self) -> SettledBatch:
        """Settle one batch of what the journal and the inbox hold, in one transaction; then sign a checkpoint."""
        raise NotImplementedError

    def drain(self) -> SettledBatch:
        """`step` until nothing is left; the summed counts."""
        raise NotImplementedError

    def close_window(self) -> int | None:
        """Pay the open window now; its number, or None when it was empty."""
        raise NotImplementedError

    def tick(self) -> None:
        """What the process does each turn: drain, expire holds, close the window when its time is up."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
