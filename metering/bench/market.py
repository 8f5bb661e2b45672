"""What is measured on: one adapter with eight scored contributors, sixteen tenants, events of about 1.3 kB."""

from __future__ import annotations

import random
from collections.abc import Iterator

from metering.canonical import digest
from metering.config import MeteringConfig
from metering.event import UsageEvent, encode_event
from metering.journal import JournalWriter
from metering.ledger import Ledger, now_us, wallet
from metering.pricebook import PriceBook, Prices, worst_case_nanos
from metering.terms import Terms

CONTRIBUTORS, TENANTS = 8, 16
IN_FLIGHT = 2_000  # appended and not yet known to be durable
HOUR_US = 3_600_000_000
BASE, ADAPTER, HEAD = (digest(name.encode()) for name in ("base", "adapter", "head"))
BOOK = PriceBook("USD", 1, Prices(10, 1, 20), Prices(100, 10, 203), {})
TERMS = Terms(
    adapter=ADAPTER,
    head=HEAD,
    method="calibrated",
    fidelity_ppm=300_000,
    base=BASE,
    datanet="facts",
    datanet_version=digest(b"version"),
    publisher="pia",
    declared={f"contributor-{i}": i + 1 for i in range(CONTRIBUTORS)},
    split_ppm={"contributors": 700_001, "trainer": 99_999, "host": 100_000, "governance": 50_000, "treasury": 50_000},
    trainer="tom",
    host="hal",
)
TERMS_DIGEST, BOOK_DIGEST = TERMS.digest, BOOK.digest


def make_events(first: int, count: int) -> Iterator[UsageEvent]:
    """Events `first` to `first + count`, always the same ones."""
    dice = random.Random(first)
    for number in range(first, first + count):
        yield UsageEvent(
            id=f"req_{number:032x}",
            time_unix_us=1_795_000_000_000_000 + number,
            tenant=f"tenant-{number % TENANTS}",
            key_id="key-1",
            model="facts/oracle",
            endpoint="chat.completions",
            base=BASE,
            terms=TERMS_DIGEST,
            price_book=BOOK_DIGEST,
            prompt_tokens=100,
            cached_tokens=40,
            completion_tokens=60,
            finish_reasons=("stop",),
            tokens_commitment=HEAD,
            adapter=ADAPTER,
            head=HEAD,
            scores={name: dice.randrange(-(10**6), 2 * 10**6) for name in TERMS.declared},
        )


def prepare(config: MeteringConfig) -> Ledger:
    """An open ledger with the documents and rich tenants."""
    ledger = Ledger.open(config)
    ledger.put_document("terms", TERMS.encode())
    ledger.put_document("price_book", BOOK.encode())
    for i in range(TENANTS):
        ledger.credit(f"topup-{i}", f"tenant-{i}", 10**17).require()
    return ledger


def place_holds(ledger: Ledger, events: list[UsageEvent]) -> None:
    """Pending holds of many requests, put there in one transaction: the request path is measured by itself."""
    amount = worst_case_nanos(BOOK, ADAPTER, 100, 120)
    with ledger.store.write() as connection:
        accounts = {
            f"tenant-{i}": connection.execute("SELECT id FROM accounts WHERE name = ?", (wallet(f"tenant-{i}"),))[0][0]
            for i in range(TENANTS)
        }
        rows = [(e.id, e.tenant, accounts[e.tenant], amount, now_us() + HOUR_US, "pending") for e in events]
        connection.insert("holds", "id, tenant, account, amount, expires_us, state", rows)
        for tenant, account in accounts.items():
            held = amount * sum(event.tenant == tenant for event in events)
            connection.execute("UPDATE accounts SET held = held + ? WHERE id = ?", (held, account))


def write_journal(config: MeteringConfig, records: list[bytes]) -> None:
    """Append all, durably."""
    writer = JournalWriter(config, "bench")
    for start in range(0, len(records), IN_FLIGHT):
        for future in [writer.append(record) for record in records[start : start + IN_FLIGHT]]:
            future.result(timeout=60)
    writer.close()


def encode_all(events: list[UsageEvent]) -> list[bytes]:
    return [encode_event(event) for event in events]
