"""From generated tokens to a durable usage event: the only road, for finished, broken and recovered requests."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from gateway.closing import Closing, close
from gateway.engine.tally import read_totals
from gateway.errors import EngineUnavailable, StoreStopped
from gateway.flights import Ticket
from gateway.meter import Meter
from gateway.metrics import observe_usage
from gateway.services import Services
from metering.errors import JournalError

ENDING_SECONDS = 10.0  # how long an aborted request may take to end in the engine
FORGET_SECONDS = 1.0


class Settling:
    """Appends events and releases what admission took."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._behind: set[asyncio.Task] = set()
        self._forgettable: list[str] = []

    async def seal(self, ticket: Ticket, meter: Meter, finish: str = "abort") -> Closing:
        """The closing of a request, remembered so that a crash from here on appends the very same record."""
        closing = await self._services.call(self._seal, ticket, meter, finish)
        if self._services.audits.takes(ticket):
            self._later(self._services.call(self._services.audits.offer, ticket, meter))
        return closing

    def _seal(self, ticket: Ticket, meter: Meter, finish: str) -> Closing:
        documents = self._services.documents
        terms, prices = documents.terms(ticket.terms), documents.price_book(ticket.price_book)
        closing = close(ticket, meter, terms, prices, finish, documents.volumes)
        self._services.flights.seal(ticket.request_id, closing.record)
        return closing

    async def append(self, ticket: Ticket, closing: Closing) -> None:
        """Returns once the event is durable. Raises StoreStopped, leaving the request to recovery."""
        try:
            await self._services.journal.append_async(closing.record)
        except JournalError as error:
            await self._services.call(self._services.flights.abandon, ticket.request_id)
            raise StoreStopped("The usage journal cannot take events now.", retry_after_seconds=5) from error
        observe_usage(ticket, closing.usage)
        self._later(self.release(ticket, closing.usage["total_tokens"]))

    async def broken(self, ticket: Ticket, meter: Meter) -> Closing | None:
        """Settles a request whose stream broke off, at what the engine counted; None when it generated nothing."""
        ticket = ticket.cut_off()
        await self._services.engine.abort(ticket.request_id)
        await self.complete(ticket, meter)
        if meter.completion_tokens == 0:
            await self.void(ticket)
            return None
        closing = await self.seal(ticket, meter, "error")
        await self.append(ticket, closing)
        await self._services.call(self._services.answers.release, ticket.request_id)
        return closing

    async def complete(self, ticket: Ticket, meter: Meter) -> None:
        """Brings a meter up to what was generated: asks the engine, and its tally when the engine is gone.

        Raises EngineUnavailable, leaving the request to recovery, when the engine goes on generating.
        """
        deadline = asyncio.get_running_loop().time() + ENDING_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            try:
                summary = await self._services.engine.generated(ticket.request_id)
            except EngineUnavailable:
                break
            if summary is None:
                break
            if summary["final"]:
                meter.add(summary)
                return
            await asyncio.sleep(0.1)
        else:
            await self._services.call(self._services.flights.abandon, ticket.request_id)
            raise EngineUnavailable("The engine does not end this request; it is metered when it does.")
        await self.from_tally(ticket, meter)

    async def from_tally(self, ticket: Ticket, meter: Meter) -> None:
        """Completion tokens as the engine counted them on disk, for a request that the engine no longer knows."""
        totals = await self._services.call(read_totals, self._services.settings.tally_directory)
        meter.completion_tokens = max(meter.completion_tokens, totals.get(ticket.request_id, 0))
        meter.prompt_tokens = meter.prompt_tokens or ticket.prompt_tokens

    async def void(self, ticket: Ticket) -> None:
        """Releases a request that generated nothing: no event, no charge, and its Idempotency-Key is free again."""
        services = self._services
        await services.call(services.ledger.void, ticket.request_id)
        await services.call(services.answers.release, ticket.request_id)
        await self.release(ticket, 0)

    async def release(self, ticket: Ticket, used_tokens: int) -> None:
        """Ends the flight of a request whose event is durable, or that will have none."""
        await self._services.call(self._release, ticket, used_tokens)
        if not self._forgettable:
            self._later(self._forget())
        self._forgettable.append(ticket.request_id)

    def _release(self, ticket: Ticket, used_tokens: int) -> None:
        self._services.flights.end(ticket.request_id)
        if ticket.reserved_tokens > used_tokens:
            self._services.limits.refund(ticket.key_id, ticket.reserved_tokens - used_tokens)

    async def _forget(self) -> None:
        """One call to the engine for all requests of a second: it has tokens to send."""
        await asyncio.sleep(FORGET_SECONDS)
        request_ids, self._forgettable = self._forgettable, []
        await self._services.engine.forget(request_ids)

    def _later(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def finish(self) -> None:
        """Waits for what runs behind sent answers."""
        while self._behind:
            await asyncio.wait(self._behind)
