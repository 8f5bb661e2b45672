"""Reading ahead: the records of the next batch are read in a process of their own, while this one settles a batch.

A third of what an event takes on SQLite needs no database (docs/PERFORMANCE.md), and one interpreter does one thing at
a time. The helper is `python -m metering.decoder`, started by the first batch that is worth it. It has nothing to lose:
it ends with the settler, however that ends (its pipe closes), and should it die first, the settler reads alone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from metering.catalog import Catalog
from metering.event import event_fields, event_of_fields
from metering.process import calm_collector
from metering.reading import Reading, read_record
from metering.receipt_body import Frame

Packed = tuple[str, tuple[Any, ...] | None, str, tuple[bytes, ...] | None]
WORTH_IT = 256  # records; a batch of fewer is read sooner than sent
PIPE_BYTES = 1024 * 1024  # what Linux gives to anybody
GONE = (OSError, EOFError)  # what speaking with a helper that has died raises
ANSWER_SECONDS = 30.0  # a helper that is silent for so long is given up


class Decoder:
    """`begin` to read some records, `finish` with their readings: one batch at a time."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._records: Sequence[bytes] = ()
        self._helper: Helper | None = None
        self._asked = False  # the helper has `_records`
        self._alone = len(os.sched_getaffinity(0)) < 2
        self._problems: list[str] = []

    def read(self, records: Sequence[bytes]) -> list[Reading]:
        """Here and now."""
        return [read_record(record, self._catalog) for record in records]

    def begin(self, records: Sequence[bytes]) -> None:
        """What was begun before and not finished is forgotten."""
        self._records, self._asked = records, False
        if self._alone or len(records) < WORTH_IT:
            return
        try:
            self._helper = self._helper or Helper()
            self._helper.ask(records, self._catalog)
            self._asked = True
        except GONE:
            self._give_up()

    def finish(self) -> list[Reading]:
        """The readings of what was begun, in its order."""
        asked, self._asked = self._asked, False
        if self._helper is not None and asked:
            try:
                return self._helper.answer(self._records)
            except GONE:
                self._give_up()
        return self.read(self._records)

    def problems(self) -> list[str]:
        """In words, the same ones while it lasts."""
        return self._problems

    def close(self) -> None:
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def _give_up(self) -> None:
        self.close()
        self._alone = True
        self._problems = ["the helper that decodes has died; going on without it"]


class Helper:
    """The other process, seen from the settler's."""

    def __init__(self) -> None:
        (asks, self._questions), (self._answers, says) = Pipe(duplex=False), Pipe(duplex=False)
        with asks, says:
            for end in (self._questions, says):  # whole batches fit, so that neither side waits for the other to read
                with suppress(PermissionError):  # a user's pipes have a limit; with smaller ones it is only slower
                    fcntl.fcntl(end.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            ends = (asks.fileno(), says.fileno())
            command = [sys.executable, "-m", "metering.decoder", *map(str, ends)]
            self._process = subprocess.Popen(command, pass_fds=ends, stdin=subprocess.DEVNULL)
        self._known = (0, 0)  # terms and price books that it has been sent
        self._owes = False  # an answer

    def ask(self, records: Sequence[bytes], catalog: Catalog) -> None:
        """Send records, and the documents that it lacks. Raises GONE."""
        if self._owes:
            self._receive()
        terms, books = documents = catalog.beyond(*self._known)
        self._questions.send((documents, records))
        self._known = (self._known[0] + len(terms), self._known[1] + len(books))
        self._owes = True

    def answer(self, records: Sequence[bytes]) -> list[Reading]:
        """The readings of the records that it was asked for last. Raises GONE."""
        return [_unpack(record, sent) for record, sent in zip(records, self._receive(), strict=True)]

    def close(self) -> None:
        self._questions.close()
        self._answers.close()
        self._process.kill()
        self._process.wait()

    def _receive(self) -> list[Packed]:
        if not self._answers.poll(ANSWER_SECONDS):
            raise TimeoutError("no answer")
        self._owes = False
        sent: list[Packed] = self._answers.recv()
        return sent


def serve(questions: Connection, answers: Connection) -> None:
    """The helper's work: each message is documents and records, each answer the readings without their records."""
    catalog = Catalog()
    while True:
        documents, records = questions.recv()
        catalog.learn(documents)
        seen: dict[Any, Any] = {}
        answers.send([_pack(read_record(record, catalog), seen) for record in records])


def _pack(reading: Reading, seen: dict[Any, Any]) -> Packed:
    """All but the record. Texts that recur become one object (`seen`): sent once, and known by its place from then on,
    which is what makes a dictionary find it sooner."""
    fields = None
    if reading.event is not None:
        fields = tuple([seen.setdefault(v, v) if type(v) is str else v for v in event_fields(reading.event)])
    return reading.digest, fields, reading.fault, None if reading.frame is None else tuple(reading.frame)


def _unpack(record: bytes, sent: Packed) -> Reading:
    name, fields, fault, frame = sent
    event = None if fields is None else event_of_fields(fields)
    return Reading(record, name, event, fault, None if frame is None else Frame._make(frame))


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for the settler, which still finishes what it has
        signal.signal(number, signal.SIG_IGN)
    calm_collector()
    with suppress(*GONE):
        serve(*(Connection(int(end)) for end in sys.argv[1:]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
