"""The settler process: `python -m metering.settler --data DIR` settles usage events until it is told to stop.

Its exit status: see metering.process; 3 when another settler holds the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from metering.catalog import Catalog
from metering.config import MeteringConfig
from metering.decoder import Decoder
from metering.errors import LedgerUnavailable, LogKeyRetired, SettlerRunning
from metering.ledger import Ledger, now_us
from metering.log_key import is_waiting, load_signer
from metering.month_end import MonthEnd
from metering.process import Process, run_process
from metering.reading import Reading
from metering.settlement import Batch, SettledBatch
from metering.source import SourceRecord, open_source
from metering.store import Connection
from metering.windows import close_open_window, find_open_window, last_settled_us

TIDY_SECONDS = 2.0
RETRY_SECONDS = 1.0
LAST_SECONDS = 10.0  # told to stop, a settler goes on for at most this long with what waits
NOT_THE_RECORD = (LedgerUnavailable, LogKeyRetired)  # what fails a transaction whatever is in it


class Settler:
    """Writes usage transfers, windows and log leaves. One per ledger; any number where events come from a bus and the
    ledger is a server (`config.many_settlers`): their transactions take turns (Connection.take_turn).
    """

    def __init__(self, config: MeteringConfig) -> None:
        """Take the settler's lock (SettlerRunning when another has it) and the log's key (made when missing)."""
        self._config = config
        self._ledger = Ledger.open(config)
        if not config.many_settlers and not self._ledger.store.try_lock("settler"):
            self._ledger.close()
            raise SettlerRunning(f"another settler holds the ledger of {config.data_dir}")
        self._signer = load_signer(config, self._ledger)
        self._catalog = Catalog()
        with self._ledger.store.read() as connection:
            self._last_us = last_settled_us(connection)
        self._tidy_at = 0.0
        self._month_end = MonthEnd(self._ledger)
        self._retried_at = -2  # the last public entry of the log when quarantine was last retried; -1 stands for none
        self.source = open_source(config, self._ledger.store)
        self._decoder = Decoder(self._catalog)
        self._ahead: Sequence[SourceRecord] = ()  # what the decoder has begun to read

    def read_key(self) -> bool:
        """Read the log's key again after LogKeyRetired: the operator has rotated it. False when it is the same."""
        before, self._signer = self._signer, load_signer(self._config, self._ledger)
        return before.public_key != self._signer.public_key

    def step(self) -> SettledBatch:
        """Settle one batch of what the source and the inbox hold, in one transaction that also signs a checkpoint."""
        records, readings = self._next()
        if not records and not self._waits("log_inbox"):
            return SettledBatch()
        full = len(records) == self._config.batch_size
        ahead = self.source.read_ahead(self._config.batch_size, records) if full else ()
        self._decoder.begin(_payloads(ahead))
        try:
            done = self._settle(readings, records)
        except NOT_THE_RECORD:
            raise
        except Exception:  # one record that no transaction survives must neither stop the others nor go unseen
            done = self._settle_apart(readings) + self._settle([], records)
        self.source.acknowledge(records)
        self._ahead = ahead
        return done

    def drain(self, until: float = float("inf")) -> SettledBatch:
        """`step` until nothing is left, or `time.monotonic()` is past `until`; the summed counts."""
        total = SettledBatch()
        while time.monotonic() < until and (done := self.step()):
            total += done
        return total

    def close_window(self, opened_until_us: int | None = None) -> int | None:
        """Pay the open window now; its number, or None when there is none, or it was opened after `opened_until_us`."""
        with self._ledger.store.write() as connection:
            time_us = self._take_turn(connection)
            window = find_open_window(connection)  # whoever had the last turn may have closed the one that was due
            if window is None or (opened_until_us is not None and window[1] > opened_until_us):
                return None
            return close_open_window(connection, self._catalog, self._ledger.currency, time_us)

    def retry_quarantine(self) -> SettledBatch:
        """Settle what was put aside, for when missing terms or prices have arrived; what still fails stays."""
        with self._ledger.store.read() as connection:
            rows = connection.execute("SELECT record FROM quarantine ORDER BY time_us, record_digest")
        readings = self._decoder.read([bytes(row[0]) for row in rows])
        try:
            return self._retry(readings)
        except NOT_THE_RECORD:
            raise
        except Exception:  # see step
            return self._retry_apart(readings)

    def tick(self) -> SettledBatch:
        """What the process does each turn: drain, expire holds, close the window when its time is up."""
        if time.monotonic() - self._tidy_at > TIDY_SECONDS:
            self._tidy_at = time.monotonic()
            self.source.tidy()
            if is_waiting(self._config):  # who rotated the key may be gone, and nothing to be signed
                self.read_key()
            if self._config.finalise_invoices:
                self._last_us = max(self._last_us, now_us())  # nothing is settled before what was found to be over
                self._month_end.turn(self._last_us)
        done = self.drain()
        last_entry = self._last_entry()
        if last_entry != self._retried_at and self._waits("quarantine"):
            done += self.retry_quarantine()
            self._retried_at = last_entry
        self._ledger.expire_holds(now_us())
        with self._ledger.store.read() as connection:
            window = find_open_window(connection)
        due_us = max(self._last_us, now_us()) - int(self._config.window_seconds * 1e6)
        if window is not None and window[1] <= due_us:
            self.close_window(due_us)
        return done

    def problems(self) -> list[str]:
        """What is wrong now, in words; the same words while it lasts."""
        return [*self.source.problems(), *self._decoder.problems()]

    def close(self) -> None:
        self._decoder.close()
        self.source.close()
        self._ledger.close()

    def _next(self) -> tuple[Sequence[SourceRecord], list[Reading]]:
        """What was read ahead if anything was, else what the source has now."""
        records, self._ahead = self._ahead, ()
        if records:
            return records, self._decoder.finish()
        records = self.source.read(self._config.batch_size)
        return records, self._decoder.read(_payloads(records))

    def _settle(self, readings: Sequence[Reading], records: Sequence[SourceRecord]) -> SettledBatch:
        """One transaction: settle the readings, sequence the inbox, note that the records need not come again."""
        with self._ledger.store.write() as connection:
            time_us = self._take_turn(connection)
            done = self._batch(connection, readings, time_us)
            self.source.store_position(connection, records)
        return done

    def _settle_apart(self, readings: Sequence[Reading]) -> SettledBatch:
        """Each in a transaction of its own; what fails even so is put aside under the name of its failure."""
        total = SettledBatch()
        for reading in readings:
            try:
                total += self._settle([reading], [])
            except NOT_THE_RECORD:
                raise
            except Exception as error:
                with self._ledger.store.write() as connection:
                    batch = Batch(connection, self._catalog, self._ledger.currency, self._take_turn(connection))
                    batch.put_aside(reading, f"settlement_failed: {type(error).__name__}: {ascii(str(error))[:500]}")
                    total += batch.finish(self._signer, 0)
        return total

    def _retry(self, readings: Sequence[Reading]) -> SettledBatch:
        """One transaction: take the readings out of quarantine and settle them."""
        with self._ledger.store.write() as connection:
            time_us = self._take_turn(connection)
            rows = [(reading.digest,) for reading in readings]
            connection.executemany("DELETE FROM quarantine WHERE record_digest = ?", rows)
            return self._batch(connection, readings, time_us)

    def _retry_apart(self, readings: Sequence[Reading]) -> SettledBatch:
        total = SettledBatch()
        for reading in readings:
            try:
                total += self._retry([reading])
            except NOT_THE_RECORD:
                raise
            except Exception:  # it stays where it is
                total += SettledBatch(quarantined=1)
        return total

    def _batch(self, connection: Connection, readings: Sequence[Reading], time_us: int) -> SettledBatch:
        batch = Batch(connection, self._catalog, self._ledger.currency, time_us)
        batch.load(readings)
        for reading in readings:
            batch.add(reading)
        return batch.finish(self._signer, self._config.batch_size)

    def _take_turn(self, connection: Connection) -> int:
        """Wait until no other settler settles; the time, never before an earlier settlement by whomever, nor within a
        month that was invoiced.

        A clock set back, or one behind those of others, does not reopen a period.
        """
        connection.take_turn()
        self._last_us = max(self._last_us, last_settled_us(connection), now_us())
        return self._last_us

    def _last_entry(self) -> int:
        """Index of the log's last entry that is not usage: what quarantine lacks may have come with it.

        Read from the ledger, since another settler may have written the entry and be gone.
        """
        with self._ledger.store.read() as connection:
            rows = connection.execute("SELECT max(leaf_index) FROM log_leaves WHERE kind <> 'usage'")
        return -1 if rows[0][0] is None else rows[0][0]

    def _waits(self, table: str) -> bool:
        with self._ledger.store.read() as connection:
            return bool(connection.execute(f"SELECT 1 FROM {table} LIMIT 1"))


def _payloads(records: Sequence[SourceRecord]) -> list[bytes]:
    return [record.payload for record in records]


def settle(process: Process) -> None:
    """Tick until told to stop, then settle what still waits."""
    settler = Settler(process.config)
    process.ready()
    try:
        run(settler, process.config.poll_seconds, process.stop, process.say)
    finally:
        settler.close()


def run(settler: Settler, poll_seconds: float, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Tick until `stop` is set; each problem is said once while it lasts."""
    said: set[str] = set()
    while not stop.is_set():
        pause, problems = poll_seconds, set()
        try:
            if settler.tick():
                pause = 0.0
        except LedgerUnavailable as error:
            pause, problems = RETRY_SECONDS, {f"{error}; retrying"}
        except LogKeyRetired as error:
            if not settler.read_key():
                pause, problems = RETRY_SECONDS, {f"{error}; waiting for the new key in log.key"}
        problems |= set(settler.problems())
        for problem in sorted(problems - said):
            say(problem)
        said = problems
        stop.wait(pause)
    settler.drain(time.monotonic() + LAST_SECONDS)


def main(arguments: list[str] | None = None) -> int:
    return run_process("settler", settle, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
