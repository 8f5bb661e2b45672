"""The measurements. Each returns numbers with their unit in the name; rates are per round, so that spread is seen."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any

from metering import merkle
from metering.bench.market import (
    ADAPTER,
    BOOK,
    TERMS_DIGEST,
    encode_all,
    make_events,
    place_holds,
    prepare,
    write_journal,
)
from metering.bench.rivals import RowInserts, create_rivals, insert_raw, transfer_in_sql
from metering.bench.usage import TICK_SECONDS, cpu_seconds, resident_kib
from metering.canonical import digest
from metering.config import MeteringConfig
from metering.invoice import build_invoice
from metering.journal import JournalWriter
from metering.ledger import Ledger, now_us
from metering.log import LogTree, latest_checkpoint, leaf_bytes
from metering.note import parse_checkpoint, split_note
from metering.period import current_month
from metering.pricebook import worst_case_nanos
from metering.process import calm_collector
from metering.receipt import build_receipt, verify_receipt
from metering.settler import Settler
from metering.store import open_store

REPEATS = 300
MINUTE_US = 60_000_000
USAGE = "id, event_digest, window_id, leaf_index, tenant, terms, completion_tokens, base_only, amount_nanos, body"
MEMORY_STEP = 4096  # events made at a time


def journal_rates(config: MeteringConfig, events: int, rounds: int) -> list[float]:
    """Durable events a second of one writer: appended, synced, acknowledged."""
    records = encode_all(list(make_events(0, events)))
    return [events / timed(write_journal, config, records) for _ in range(rounds)]


def settlement_rates(
    config: MeteringConfig, rivals: MeteringConfig, events: int, rounds: int
) -> dict[str, list[float]]:
    """Events a second, one of each kind a round, in turns: journal to committed transfers, leaves and checkpoint; raw
    batched inserts of the bodies it stored, and of all its rows into the same tables; a transfer each in plain SQL.
    Every event has a hold that is posted.

    `settled_per_cpu_second` counts the processor time of this process, which other work on the machine moves less.
    """
    server = bool(config.ledger_url)
    ledger, other = prepare(config), open_store(rivals)
    create_rivals(other, server=server)
    settler = Settler(config)
    settler.drain()
    rows = RowInserts(ledger.store, other)
    rows.read()
    rates: dict[str, list[float]] = {
        "settled": [],
        "settled_per_cpu_second": [],
        "raw_inserts": [],
        "row_inserts": [],
        "sql_transfers": [],
    }
    for number in range(rounds):
        made = list(make_events(number * events, events))
        place_holds(ledger, made)
        write_journal(config, encode_all(made))
        began = cpu_seconds()
        rates["settled"].append(events / timed(settler.drain))
        rates["settled_per_cpu_second"].append(events / max(cpu_seconds() - began, TICK_SECONDS))
        with ledger.store.read() as connection:
            bodies = connection.execute("SELECT id, body FROM usage ORDER BY leaf_index DESC LIMIT ?", (events,))[::-1]
        stored = [(str(name), bytes(body)) for name, body in bodies]
        assert [name for name, _ in stored] == [event.id for event in made]
        names = [event.id for event in made]
        rates["raw_inserts"].append(events / timed(insert_raw, other, stored, config.batch_size))
        rows.read()
        rates["row_inserts"].append(events / timed(rows.insert, events, config.batch_size))
        rates["sql_transfers"].append(events / timed(transfer_in_sql, other, names, config.batch_size, server))
    settler.close()
    ledger.close()
    other.close()
    return rates


def request_latencies(ledger: Ledger, config: MeteringConfig) -> dict[str, float]:
    """Median microseconds on the request path: a hold, and the usage event's becoming durable in the journal.

    That event posts the hold, whatever happens afterwards. `post_us` is what a post in the ledger itself takes, durable
    when it returns: settlement does that for a batch at a time, so it is measured after the requests, not between them
    (its fsync of the ledger's log is what the next event's would wait for).
    """
    ledger.open_account("host:bench", ledger.currency, overdraft=False)
    amount = worst_case_nanos(BOOK, ADAPTER, 100, 120)
    writer = JournalWriter(config, "bench")
    holds, events, posts = [], [], []
    for number, record in enumerate(encode_all(list(make_events(0, REPEATS)))):
        name, until = f"bench-{number}", now_us() + MINUTE_US
        holds.append(timed(ledger.hold, name, "tenant-0", amount, until))
        events.append(timed(_append, writer, record))
    writer.close()
    for number in range(REPEATS):
        name = f"bench-{number}"
        posts.append(timed(ledger.post, name, f"{name}/post", amount // 2, "host:bench"))
    both = [hold + event for hold, event in zip(holds, events, strict=True)]
    medians = {"hold_us": holds, "event_us": events, "hold_and_event_us": both, "post_us": posts}
    return {name: median(values) * 1e6 for name, values in medians.items()}


def _append(writer: JournalWriter, record: bytes) -> None:
    writer.append(record).result(timeout=60)


def proof_latencies(ledger: Ledger, config: MeteringConfig, events: int) -> dict[str, float]:
    """Median microseconds to build a receipt, to verify all of it offline, and to verify its inclusion proof alone."""
    public_key = config.log_public_key_path.read_text()
    names = [f"req_{number * max(1, events // REPEATS) % events:032x}" for number in range(REPEATS)]
    built = [timed(build_receipt, ledger, name) for name in names]
    verified = [timed(verify_receipt, build_receipt(ledger, name), public_key) for name in names]
    checkpoint = parse_checkpoint(split_note(latest_checkpoint(ledger))[0])
    checked = []
    with ledger.store.read() as connection:
        tree = LogTree(connection)
        for name in names:
            rows = connection.execute("SELECT leaf_index, body FROM usage WHERE id = ?", (name,))
            index, leaf = rows[0][0], leaf_bytes("usage", digest(bytes(rows[0][1])))
            path = merkle.inclusion_proof(tree, index, checkpoint.size)
            checked.append(timed(_verify, leaf, index, path, checkpoint.size, checkpoint.root))
    return {
        "receipt_us": median(built) * 1e6,
        "receipt_verify_us": median(verified) * 1e6,
        "proof_verify_us": median(checked) * 1e6,
    }


def _verify(leaf: bytes, index: int, path: list[bytes], size: int, root: bytes) -> None:
    merkle.verify_inclusion(merkle.leaf_hash(leaf), index, size, path, root)


def invoice_seconds(ledger: Ledger, events: int) -> float:
    """Seconds for the invoice of one tenant with `events` requests in the month: its sums from the transfers, and the
    root over all its receipts. The rows are put there without settlement."""
    at_us, batch = now_us(), 50_000
    with ledger.store.read() as connection:
        debit, credit = connection.execute("SELECT debit, credit FROM transfers WHERE code = 'usage' LIMIT 1")[0]
        leaves = connection.execute("SELECT max(size) FROM log_checkpoints")[0][0]
    for start in range(0, events, batch):
        numbers = range(start, min(start + batch, events))
        digests = [f"sha256:{number:064x}" for number in numbers]
        transfers = [(f"invoice-{number}", debit, credit, 100, "usage", at_us) for number in numbers]
        entries = [(leaves + number, "usage", name) for number, name in zip(numbers, digests, strict=True)]
        usage = [
            (f"invoice-{number}", name, 1, leaves + number, "tenant-0", TERMS_DIGEST, 1, 0, 100, b"")
            for number, name in zip(numbers, digests, strict=True)
        ]
        with ledger.store.write() as connection:
            connection.insert("transfers", "id, debit, credit, amount, code, time_us", transfers)
            connection.insert("log_leaves", "leaf_index, kind, digest", entries)
            connection.insert("usage", USAGE, usage)
    with ledger.store.write() as connection:
        connection.execute(
            "INSERT INTO log_checkpoints (size, note, time_us) VALUES (?, '', ?)", (leaves + events, at_us)
        )
    began = time.perf_counter()
    invoice = build_invoice(ledger, "tenant-0", current_month(at_us))
    seconds = time.perf_counter() - began
    assert invoice["receipts"]["count"] >= events
    return seconds


def memory_growth(config: MeteringConfig, events: int, rounds: int) -> dict[int, dict[str, int]]:
    """Resident KiB, now and at most so far, by the number of events that one settler has settled, after each round.

    In a process of its own: in this one what other measurements have freed would hide the growth.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_settle_for_long, config, events, rounds).result()


def _settle_for_long(config: MeteringConfig, events: int, rounds: int) -> dict[int, dict[str, int]]:
    calm_collector()
    ledger = prepare(config)
    settler = Settler(dataclasses.replace(config, journal_retention_seconds=0.0))
    sizes = {}
    for number in range(rounds):
        for first in range(number * events, (number + 1) * events, MEMORY_STEP):
            count = min(MEMORY_STEP, (number + 1) * events - first)
            write_journal(config, encode_all(list(make_events(first, count))))
            settler.tick()
        sizes[(number + 1) * events] = {"now": resident_kib("VmRSS"), "peak": resident_kib("VmHWM")}
    settler.close()
    ledger.close()
    return sizes


def timed(act: Callable[..., object], *arguments: Any) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - began
