"""What one gateway worker holds open: stores, ledger, journal, engine. Built once, passed to every route."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adapters.base import BaseModel
from adapters.compositions import Compositions
from adapters.database import Database as RegistryDatabase
from adapters.datanet import DatanetStore
from adapters.package import PackageLimits
from adapters.registry import Registry
from gateway.accounts import Accounts, ensure_operator
from gateway.answers import Answers
from gateway.audit.sampled import Audits
from gateway.builds import Builds
from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.database import Database
from gateway.documents import Documents
from gateway.flights import Flights
from gateway.limits import Limits
from gateway.prices import load_price_book
from gateway.prompts import PromptCounter
from gateway.publication import Publication
from gateway.terms import TermsBook, base_terms
from gateway.upstream import EngineClient
from metering.config import MeteringConfig
from metering.journal import JournalWriter
from metering.ledger import Ledger
from metering.pricebook import PriceBook

OPERATOR = "operator"
STAGING_LIFE_MS = 3_600_000
T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """One worker's open stores. Store calls block, so coroutines go through `call`."""

    settings: Settings
    metering: MeteringConfig
    accounts: Accounts
    answers: Answers
    audits: Audits
    limits: Limits
    flights: Flights
    engine: EngineClient
    prompts: PromptCounter
    ledger: Ledger
    journal: JournalWriter
    documents: Documents
    prices: PriceBook
    datanets: DatanetStore
    registry: Registry
    compositions: Compositions
    builds: Builds
    catalog: Catalog
    terms: TermsBook
    publication: Publication
    _databases: tuple[Database | RegistryDatabase, ...]
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "store"))

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """function(*args, **kwargs) in a thread that may block on a store."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def close(self) -> None:
        """Closes everything; the journal syncs what waits."""
        await self.engine.close()
        await self.call(self.builds.close)
        await self.call(self.journal.close)
        self._threads.shutdown()
        self.flights.close()
        self.audits.close()
        self.ledger.close()
        for database in self._databases:
            database.close()


def open_services(settings: Settings) -> Services:
    """Opens or creates everything under `settings.data`. Raises the stores' own errors by name."""
    (settings.data / "gateway").mkdir(parents=True, exist_ok=True)
    with start_lock(settings):
        return _open(settings)


@contextmanager
def start_lock(settings: Settings) -> Iterator[None]:
    """One worker at a time: the first one makes the operator, the price book and the schemas."""
    with (settings.data / "gateway" / "start.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(settings: Settings) -> Services:
    metering = MeteringConfig.from_environment(settings.data, os.environ)
    database = Database(settings.data / "gateway.db")
    registry_database = RegistryDatabase(settings.data / "registry.db")
    ledger = Ledger.open(metering)
    prices = load_price_book(settings.data, metering.currency)
    base = BaseModel.from_directory(settings.base_directory, settings.base_name or None)
    terms_of_base = base_terms(base.digest, OPERATOR)
    ledger.put_document("price_book", prices.encode())
    ledger.put_document("terms", terms_of_base.encode())
    datanets = DatanetStore(registry_database)
    limits = PackageLimits(package_bytes=settings.max_upload_bytes, max_rank=settings.max_lora_rank)
    registry = Registry(registry_database, settings.data / "adapters", base, limits)
    registry.recover(STAGING_LIFE_MS)
    compositions = Compositions(registry, settings.data / "adapters", OPERATOR, settings.compositions_bytes)
    terms = TermsBook(database, datanets, ledger, OPERATOR, registry.by_digest)
    accounts = Accounts(database)
    ensure_operator(accounts, settings.operator_key_file, OPERATOR)
    registry.claim(OPERATOR, acting=OPERATOR)
    flights = Flights(settings.data / "gateway")
    publication = Publication(database, datanets, ledger)
    publication.publish()
    return Services(
        settings=settings,
        metering=metering,
        accounts=accounts,
        answers=Answers(database, settings.answer_kept_seconds),
        audits=Audits(settings.data, settings.audit_share_ppm),
        limits=Limits(
            settings.data / "gateway" / "limits.db", settings.requests_per_minute, settings.tokens_per_minute
        ),
        flights=flights,
        engine=EngineClient(settings.engine_socket, settings.engine_connect_seconds, settings.engine_silence_seconds),
        prompts=PromptCounter(settings.base_directory, base.name),
        ledger=ledger,
        journal=JournalWriter(metering, f"gateway-{flights.worker[-12:]}"),
        documents=Documents(ledger),
        prices=prices,
        datanets=datanets,
        registry=registry,
        compositions=compositions,
        builds=Builds(
            compositions,
            publication,
            settings.data / "gateway" / "composing.lock",
            settings.composition_wait_seconds,
        ),
        catalog=Catalog(base, terms_of_base, registry, terms),
        terms=terms,
        publication=publication,
        _databases=(database, registry_database),
    )
