"""Reading ahead in another process: the same readings as here, and nothing lost with it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metering.bench.market import (
    BOOK,
    BOOK_DIGEST,
    TERMS,
    TERMS_DIGEST,
    make_events,
    place_holds,
    prepare,
    write_journal,
)
from metering.catalog import Catalog
from metering.check import run_checks
from metering.config import MeteringConfig
from metering.decoder import WORTH_IT, Decoder
from metering.event import encode_event
from metering.reading import read_record
from metering.settler import Settler

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a helper needs a second core")


@pytest.fixture
def catalog() -> Catalog:
    known = Catalog()
    known.learn(({TERMS_DIGEST: TERMS}, {BOOK_DIGEST: BOOK}))
    return known


@pytest.fixture
def decoder(catalog: Catalog):
    made = Decoder(catalog)
    yield made
    made.close()


def events(first: int, count: int) -> list[bytes]:
    return [encode_event(event) for event in make_events(first, count)]


def helper_of(decoder: Decoder) -> int:
    assert decoder._helper is not None
    return decoder._helper._process.pid


def alive(pid: int) -> bool:
    """Not for what is dead and waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_helper_reads_what_would_be_read_here(decoder: Decoder, catalog: Catalog) -> None:
    """Events, unknown terms, a contributor that the terms lack, canaries, and bytes that are no event."""
    odd = list(make_events(WORTH_IT, 3))
    odd[0] = dataclasses.replace(odd[0], terms=BOOK_DIGEST)
    odd[1] = dataclasses.replace(odd[1], scores={"stranger": 5})
    odd[2] = dataclasses.replace(odd[2], purpose="canary")
    records = [*events(0, WORTH_IT), *map(encode_event, odd), b"", b"{}", events(9, 1)[0][:-1]]
    decoder.begin(records)
    assert helper_of(decoder)
    readings = decoder.finish()
    assert readings == [read_record(record, catalog) for record in records]
    assert [reading.frame is None for reading in readings[WORTH_IT:]] == [True, True, False, True, True, True]
    assert readings[0].frame is not None
    assert readings[-1].event is None
    assert readings[-1].fault


def test_documents_reach_the_helper_as_they_are_learned(decoder: Decoder) -> None:
    """A receipt's frame is of the terms that the event names, however late they became known."""
    decoder._catalog = Catalog()
    records = events(0, WORTH_IT)
    frames = []
    for learned in ({}, {TERMS_DIGEST: TERMS}):
        decoder._catalog.learn((learned, {BOOK_DIGEST: BOOK} if learned else {}))
        decoder.begin(records)
        frames.append(decoder.finish()[0].frame)
    assert frames[0] is None
    assert frames[1] == decoder.read(records[:1])[0].frame


def test_few_records_start_no_process(decoder: Decoder) -> None:
    records = events(0, WORTH_IT - 1)
    decoder.begin(records)
    assert decoder._helper is None
    assert [reading.record for reading in decoder.finish()] == records


def test_what_was_begun_is_forgotten_when_something_else_is(decoder: Decoder) -> None:
    """As after a batch that failed: the answer to the first question is not taken for that to the second."""
    first, second = events(0, WORTH_IT), events(5_000, WORTH_IT + 1)
    decoder.begin(first)
    decoder.begin(second)
    assert [reading.record for reading in decoder.finish()] == second
    decoder.begin(first)
    decoder.begin([])
    assert decoder.finish() == []
    decoder.begin(second)
    assert [reading.record for reading in decoder.finish()] == second


@pytest.mark.parametrize("moment", ["before", "after", "between"])
def test_a_helper_that_dies_is_done_without(decoder: Decoder, moment: str) -> None:
    """Killed before it is asked, before it answers, or before what it is asked instead: read here, with a word."""
    records = events(0, WORTH_IT)
    decoder.begin(records)
    decoder.finish()
    assert decoder.problems() == []
    if moment == "before":
        os.kill(helper_of(decoder), signal.SIGKILL)
    decoder.begin(records)
    if moment in ("after", "between"):
        os.kill(helper_of(decoder), signal.SIGKILL)
    if moment == "between":
        decoder.begin(records := events(7_000, WORTH_IT))
    assert [reading.record for reading in decoder.finish()] == records
    assert decoder.problems()
    decoder.begin(records)
    assert [reading.record for reading in decoder.finish()] == records


def test_the_helper_ends_with_a_killed_settler(tmp_path: Path) -> None:
    """SIGTERM to the helper is no reason to end, its settler's death is."""
    program = (
        "import os, signal, time; from metering.catalog import Catalog; from metering.decoder import *;"
        f" decoder = Decoder(Catalog()); decoder.begin([b''] * {WORTH_IT}); decoder.finish();"
        " os.kill(decoder._helper._process.pid, signal.SIGTERM);"
        f" decoder.begin([b''] * {WORTH_IT}); assert len(decoder.finish()) == {WORTH_IT} and not decoder.problems();"
        " print(decoder._helper._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as settler:
        assert settler.stdout is not None
        pid = int(settler.stdout.readline())
        assert alive(pid)
        settler.kill()
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_full_batches_settle_through_the_helper_as_small_ones_do(tmp_path: Path) -> None:
    """Every receipt's body is the same but for when and where it was settled; the books are clean."""
    bodies = []
    for batch in (WORTH_IT, 50):
        config = MeteringConfig(tmp_path / str(batch), batch_size=batch, min_free_bytes=1)
        ledger, made = prepare(config), list(make_events(0, 3 * WORTH_IT + 7))
        place_holds(ledger, made)
        write_journal(config, [*map(encode_event, made)])
        settler = Settler(config)
        assert settler.drain().settled == len(made)
        assert (settler._decoder._helper is not None) == (batch == WORTH_IT)
        with ledger.store.read() as connection:
            rows = connection.execute("SELECT body FROM usage ORDER BY id")
        bodies.append([_without_time(bytes(row[0])) for row in rows])
        assert run_checks(config, ledger).findings == ()
        settler.close()
        ledger.close()
    assert bodies[0] == bodies[1]


def _without_time(body: bytes) -> bytes:
    head, settled = body.split(b'"settlement":{"time":"')
    return head + settled[27:]
