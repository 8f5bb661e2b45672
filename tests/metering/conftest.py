"""A small marketplace for the tests of the meter: a tenant, an adapter with four contributors, a base model, prices."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from metering.bench.nats_server import NatsServer
from metering.bench.server import postgres, schema_url
from metering.canonical import digest
from metering.config import MeteringConfig
from metering.event import UsageEvent, encode_event, rfc3339
from metering.journal import JournalWriter
from metering.ledger import Ledger, now_us
from metering.pricebook import PriceBook, Prices, worst_case_nanos
from metering.settler import Settler
from metering.terms import Terms

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
    declared={"ada": 5, "bob": 3, "cyd": 1, "dee": 1},
    split_ppm={"contributors": 700_001, "trainer": 99_999, "host": 100_000, "governance": 50_000, "treasury": 50_000},
    trainer="tom",
    host="hal",
)
BASE_TERMS = Terms(
    adapter=None,
    head=None,
    method=None,
    fidelity_ppm=0,
    base=BASE,
    datanet=None,
    datanet_version=None,
    publisher=None,
    declared={},
    split_ppm={"contributors": 0, "trainer": 0, "host": 900_000, "governance": 0, "treasury": 100_000},
    trainer=None,
    host="hal",
)
MINUTE_US = 60_000_000


@dataclass
class Market:
    """A data directory in use: what the gateway does, in three calls."""

    config: MeteringConfig
    ledger: Ledger
    numbers: itertools.count = field(default_factory=itertools.count)
    terms: Terms = TERMS

    def event(self, **changes) -> UsageEvent:
        """A usage event of the adapter; with adapter=None, of the base model."""
        fields = {
            "id": f"req_{next(self.numbers):032x}",
            "time_unix_us": 1_795_000_000_000_000,
            "tenant": "acme",
            "key_id": "key-1",
            "model": "facts/oracle",
            "endpoint": "chat.completions",
            "base": BASE,
            "terms": TERMS.digest,
            "price_book": BOOK.digest,
            "prompt_tokens": 11,
            "cached_tokens": 4,
            "completion_tokens": 7,
            "finish_reasons": ("stop",),
            "tokens_commitment": digest(b"tokens"),
            "adapter": ADAPTER,
            "head": HEAD,
            "scores": {"ada": 2_500_000, "bob": -700_000, "cyd": 1},
        }
        if "adapter" in changes and changes["adapter"] is None:
            fields |= {"head": None, "scores": {}, "terms": BASE_TERMS.digest, "model": "base"}
        return UsageEvent(**(fields | changes))

    def hold(self, event: UsageEvent) -> None:
        amount = worst_case_nanos(BOOK, event.adapter, event.prompt_tokens, 2 * event.completion_tokens)
        self.ledger.hold(event.id, event.tenant, amount, now_us() + MINUTE_US).require()

    def journal(self, *events: UsageEvent) -> None:
        """Append durably, as one gateway worker."""
        writer = JournalWriter(self.config, "test")
        for future in [writer.append(encode_event(event)) for event in events]:
            future.result(timeout=10)
        writer.close()

    def serve(self, count: int, **changes) -> list[UsageEvent]:
        """`count` requests, each with a hold and a durable event."""
        events = [self.event(**changes) for _ in range(count)]
        for event in events:
            self.hold(event)
        self.journal(*events)
        return events


@pytest.fixture
def ledger_url() -> str:
    """The embedded ledger; modules whose facts must hold on every store override this with `every_store`."""
    return ""


@pytest.fixture
def config(tmp_path: Path, ledger_url: str) -> MeteringConfig:
    return MeteringConfig(
        data_dir=tmp_path / "data", ledger_url=ledger_url, segment_bytes=64 * 1024, min_free_bytes=1, batch_size=16
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test session; these tests kill processes, not the power."""
    with postgres("-c", "fsync=off") as url:
        yield url


@pytest.fixture
def month() -> str:
    """The running one."""
    return rfc3339(now_us())[:7]


def fresh_ledger_url(kind: str, request: pytest.FixtureRequest) -> str:
    """The setting for an empty ledger of that kind; on PostgreSQL a schema of its own."""
    if kind == "sqlite":
        return ""
    url = request.getfixturevalue("postgres_server")
    return schema_url(url, f"test_{uuid.uuid4().hex}")


@pytest.fixture(params=["sqlite", "postgresql"])
def every_store(request) -> str:
    """Runs a test once on each store."""
    return fresh_ledger_url(request.param, request)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A real server of the test's own, which it may kill."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def ledger(config):
    opened = Ledger.open(config)
    yield opened
    opened.close()


@pytest.fixture
def market(config, ledger) -> Market:
    ledger.put_document("price_book", BOOK.encode())
    ledger.put_document("terms", TERMS.encode())
    ledger.put_document("terms", BASE_TERMS.encode())
    ledger.credit("topup-1", "acme", 10**12).require()
    return Market(config, ledger)


@pytest.fixture
def settler(config):
    opened = Settler(config)
    yield opened
    opened.close()
