"""The settler process: `python -m metering.settler --data DIR` drains the journal until it is told to stop.

Exit status: 0 after SIGTERM or SIGINT, 3 when another settler holds the ledger.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from metering.catalog import Catalog
from metering.config import MeteringConfig
from metering.errors import JournalCorrupt, LedgerUnavailable, SettlerRunning
from metering.journal_reader import JournalReader
from metering.ledger import Ledger, now_us
from metering.note import NoteSigner
from metering.settlement import Batch, SettledBatch, read_record
from metering.windows import close_open_window, find_open_window

ORPHAN_SECONDS = 2.0
RETRY_SECONDS = 1.0


class Settler:
    """The only writer of usage transfers, windows and log leaves. One per embedded ledger."""

    def __init__(self, config: MeteringConfig) -> None:
        """Take the settler's lock (SettlerRunning when another has it) and the log's key (made when missing)."""
        self._config = config
        self._ledger = Ledger.open(config)
        if not self._ledger.store.try_lock("settler"):
            self._ledger.close()
            raise SettlerRunning(f"another settler holds the ledger of {config.data_dir}")
        self._signer = NoteSigner.load_or_create(config.log_key_path, config.log_public_key_path, config.log_origin)
        self._catalog = Catalog()
        self._reader = JournalReader(config.journal_dir)
        with self._ledger.store.read() as connection:
            self._cursors: dict[str, int] = dict(connection.execute("SELECT segment, next_offset FROM journal_cursors"))
            last = connection.execute("SELECT max(time_us) FROM log_checkpoints")[0][0]
        self._last_us = last or 0
        self._orphans_at = 0.0
        self._retry_due = True  # documents may have come just before the last settler died
        self.damaged: list[JournalCorrupt] = []

    def step(self) -> SettledBatch:
        """Settle one batch of what the journal and the inbox hold, in one transaction that also signs a checkpoint."""
        records = self._reader.read(self._cursors, self._config.batch_size)
        cursors = {record.segment: record.next_offset for record in records}
        if not records and not self._waits("log_inbox"):
            return SettledBatch()
        readings = [read_record(record.payload) for record in records]  # before the write lock is taken
        with self._ledger.store.write() as connection:
            batch = Batch(connection, self._catalog, self._ledger.currency, self._time_us())
            batch.load(readings)
            for reading in readings:
                batch.add(reading)
            done = batch.finish(self._signer, self._config.batch_size)
            connection.executemany(
                "INSERT INTO journal_cursors (segment, next_offset) VALUES (?, ?)"
                " ON CONFLICT (segment) DO UPDATE SET next_offset = excluded.next_offset",
                cursors.items(),
            )
        self._cursors.update(cursors)
        self._retry_due |= done.entries > 0  # what quarantine lacked may have come with the new documents
        return done

    def drain(self) -> SettledBatch:
        """`step` until nothing is left; the summed counts."""
        total = SettledBatch()
        while done := self.step():
            total += done
        return total

    def close_window(self) -> int | None:
        """Pay the open window now; its number, or None when there is none."""
        with self._ledger.store.write() as connection:
            return close_open_window(connection, self._catalog, self._ledger.currency, self._time_us())

    def retry_quarantine(self) -> SettledBatch:
        """Settle what was put aside, for when missing terms or prices have arrived; what still fails stays."""
        with self._ledger.store.write() as connection:
            rows = connection.execute("SELECT record_digest, record FROM quarantine ORDER BY time_us, record_digest")
            connection.execute("DELETE FROM quarantine")
            batch = Batch(connection, self._catalog, self._ledger.currency, self._time_us())
            readings = [read_record(bytes(record)) for _, record in rows]
            batch.load(readings)
            for reading in readings:
                batch.add(reading)
            return batch.finish(self._signer, self._config.batch_size)

    def tick(self) -> SettledBatch:
        """What the process does each turn: drain, expire holds, close the window when its time is up."""
        if time.monotonic() - self._orphans_at > ORPHAN_SECONDS:
            self._orphans_at = time.monotonic()
            self._tidy_journal()
        done = self.drain()
        if self._retry_due:
            if self._waits("quarantine"):
                done += self.retry_quarantine()
            self._retry_due = False
        self._ledger.expire_holds(now_us())
        with self._ledger.store.read() as connection:
            window = find_open_window(connection)
        if window is not None and self._time_us() - window[1] >= self._config.window_seconds * 1e6:
            self.close_window()
        return done

    def close(self) -> None:
        self._ledger.close()

    def _waits(self, table: str) -> bool:
        with self._ledger.store.read() as connection:
            return bool(connection.execute(f"SELECT 1 FROM {table} LIMIT 1"))

    def _tidy_journal(self) -> None:
        self.damaged = self._reader.seal_orphans()
        removed = self._reader.remove_settled(self._cursors, self._config.journal_retention_seconds)
        if removed:
            with self._ledger.store.write() as connection:
                connection.executemany("DELETE FROM journal_cursors WHERE segment = ?", [(name,) for name in removed])
            for name in removed:
                self._cursors.pop(name, None)

    def _time_us(self) -> int:
        """Now, but never before an earlier settlement: a clock set back does not reopen a period."""
        self._last_us = max(self._last_us, now_us())
        return self._last_us


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m metering.settler", description="Settle usage events.")
    parser.add_argument("--data", type=Path, required=True, help="data directory")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    config = MeteringConfig.from_environment(options.data, os.environ)
    try:
        settler = Settler(config)
    except SettlerRunning as error:
        print(f"settler: {error}", file=sys.stderr)
        return 3
    print("settler: ready", flush=True)
    try:
        run(settler, config.poll_seconds, stop)
    finally:
        settler.close()
    return 0


def run(settler: Settler, poll_seconds: float, stop: threading.Event) -> None:
    """Tick until `stop` is set, then settle what the journal still holds."""
    reported: set[str] = set()
    while not stop.is_set():
        try:
            busy = settler.tick()
        except LedgerUnavailable as error:
            print(f"settler: {error}; retrying", file=sys.stderr, flush=True)
            stop.wait(RETRY_SECONDS)
            continue
        for damage in settler.damaged:
            if str(damage) not in reported:
                reported.add(str(damage))
                print(f"settler: journal damaged: {damage}", file=sys.stderr, flush=True)
        if not busy:
            stop.wait(poll_seconds)
    settler.drain()


if __name__ == "__main__":
    raise SystemExit(main())
