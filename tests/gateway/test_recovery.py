"""Recovery of requests that a dead worker left, in a gateway without engine: what is charged, and what is lost."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.answers import StoredAnswer
from gateway.closing import close
from gateway.config import Settings
from gateway.engine.tally import TallyWriter, read_totals
from gateway.flights import Ticket
from gateway.meter import Meter
from gateway.recovery import Recovery
from gateway.services import Services, open_services
from gateway.settling import Settling
from metering.check import run_checks
from metering.settler import Settler

GRACE_SECONDS = 0.001
TOKENS, FUTURE_US = 5, 2**62
CLIENT = "alice"
KEY_DIGEST = "sha256:" + "a" * 64


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    """The stores of one worker, and a wallet."""
    opened = open_services(replace(settings, recovery_grace_seconds=GRACE_SECONDS))
    opened.ledger.credit("top-up", CLIENT, 10**9).require()
    yield opened
    await opened.close()


def ticket_of(services: Services, number: int, key: str | None) -> Ticket:
    """An admitted request for the base model that the engine has counted in its tally and forgotten since."""
    base = services.catalog.resolve(services.catalog.base.name)
    ticket = Ticket(
        request_id=f"req_{number:032x}",
        account=CLIENT,
        key_id="key_1",
        endpoint="/v1/completions",
        model=base.name,
        base=base.base,
        adapter=None,
        head=None,
        terms=base.terms.digest,
        price_book=services.prices.digest,
        prompt_tokens=3,
        reserved_tokens=0,
        salt="00" * 32,
        started_us=1,
        idempotency_key_digest=KEY_DIGEST if key else None,
    )
    services.flights.begin(ticket)
    services.ledger.hold(ticket.request_id, CLIENT, 10**6, FUTURE_US).require()
    if key:
        assert services.answers.claim(CLIENT, key, ticket.endpoint, b"{}", ticket.request_id) is None
    tally = TallyWriter(services.settings.tally_directory)
    tally.count(ticket.request_id, 0, TOKENS)
    tally.flush()
    return ticket


def sealed(services: Services, ticket: Ticket) -> bytes:
    """The record of its whole answer, remembered as the relay does."""
    meter = Meter(prompt_tokens=3, completion_tokens=TOKENS)
    terms, prices = services.documents.terms(ticket.terms), services.documents.price_book(ticket.price_book)
    record = close(ticket, meter, terms, prices).record
    services.flights.seal(ticket.request_id, record)
    return record


def settled(services: Services) -> dict[str, int]:
    """Nanos by request, after settlement; every conservation law holds."""
    settler = Settler(services.metering)
    settler.drain()
    settler.close()
    report = run_checks(services.metering, services.ledger, read_totals(services.settings.tally_directory))
    assert report.clean, report.findings
    with services.ledger.store.read() as connection:
        return dict(connection.execute("SELECT id, amount_nanos FROM usage"))


@pytest.mark.parametrize(
    ("key", "is_sealed", "is_kept", "charged"),
    [
        (None, False, False, True),
        (None, True, False, True),
        ("k", False, False, False),
        ("k", True, False, False),
        ("k", True, True, True),
    ],
)
async def test_only_an_answer_that_its_client_can_have_is_charged(
    services: Services, key: str | None, is_sealed: bool, is_kept: bool, charged: bool
) -> None:
    """With an Idempotency-Key the retry pays for the answer, so what the crash lost is metered at no price."""
    ticket = ticket_of(services, 1, key)
    if is_sealed:
        sealed(services, ticket)
    if is_kept:
        services.answers.store(StoredAnswer(ticket.request_id, 200, "application/json", b"{}"))
    services.flights.abandon(ticket.request_id)
    assert await Recovery(services, Settling(services)).sweep() == 1
    amounts = settled(services)
    assert (amounts[ticket.request_id] > 0) == charged
    assert services.ledger.balance(CLIENT).held == 0
    if key and not is_kept:
        assert services.answers.claim(CLIENT, key, ticket.endpoint, b"{}", "req_retry") is None


async def test_a_recovery_that_was_cut_off_says_the_same_again(services: Services) -> None:
    """The lost record is remembered before it is appended: whoever repeats the recovery appends the same bytes."""
    ticket = ticket_of(services, 1, "k")
    sealed(services, ticket)
    recovery = Recovery(services, Settling(services))
    services.flights.abandon(ticket.request_id)
    [flight] = services.flights.orphans()
    assert flight.record is not None
    first = recovery._sealed(ticket, flight.record)
    await services.journal.append_async(first)  # and dies here
    await recovery.sweep()
    assert settled(services) == {ticket.request_id: 0}
