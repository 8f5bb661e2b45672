"""Recovery: requests whose worker died before the journal had them are metered from the engine and its tally."""

import asyncio
import logging
import time
from dataclasses import replace

from gateway.errors import EngineUnavailable, GatewayError
from gateway.flights import Flight, Ticket
from gateway.meter import Meter
from gateway.metrics import RECOVERED
from gateway.services import Services
from gateway.settling import Settling
from metering.errors import JournalError
from metering.event import decode_event, encode_event

log = logging.getLogger(__name__)
WAITING = "waiting"


class Recovery:
    """Runs at start and periodically, in one worker at a time."""

    def __init__(self, services: Services, settling: Settling) -> None:
        self._services = services
        self._settling = settling

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception:  # the next sweep may find the store or the engine back
                log.exception("recovery failed; it will be tried again")
            await asyncio.sleep(self._services.settings.recovery_period_seconds)

    async def sweep(self) -> int:
        """Settles every orphan that can be accounted for; returns how many."""
        services = self._services
        settled = 0
        with services.flights.recovering() as alone:
            if not alone:
                return 0
            for flight in await services.call(services.flights.orphans):
                outcome = await self._settle(flight)
                RECOVERED.labels(outcome).inc()
                settled += outcome != WAITING
                log.warning("request %s of a dead worker: %s", flight.ticket.request_id, outcome)
            await services.call(services.answers.expire)  # last: an answer says that its request is not lost
        return settled

    async def _settle(self, flight: Flight) -> str:
        """One orphan: metered from its sealed record, the engine or the tally; else voided, or kept for later."""
        services, ticket = self._services, flight.ticket
        try:
            if flight.record is not None:
                record = await services.call(self._sealed, ticket, flight.record)
                await services.journal.append_async(record)
                await services.call(services.answers.release, ticket.request_id)
                await self._settling.release(ticket, 0)
                return "sealed"
            ticket, meter = ticket.cut_off(), Meter()
            accounted = await self._account(flight, meter)
            if meter.completion_tokens:
                closing = await self._settling.seal(ticket, meter)
                await services.call(services.answers.release, ticket.request_id)
                await self._settling.append(ticket, closing)
                return "metered"
            if accounted:
                await self._settling.void(ticket)
                return "voided"
        except (GatewayError, JournalError) as error:
            log.warning("request %s: %s", ticket.request_id, error)
        return WAITING

    def _sealed(self, ticket: Ticket, record: bytes) -> bytes:
        """The record to append: as sealed, but of an answer that a client with a key can still get, and cannot.

        The relay keeps such an answer before it appends its record, so a record without answer is in no journal yet.
        """
        event = decode_event(record)
        purpose = ticket.cut_off().purpose
        if event.purpose == purpose or self._services.answers.is_stored(ticket.request_id):
            return record
        record = encode_event(replace(event, purpose=purpose))
        self._services.flights.seal(ticket.request_id, record)
        return record

    async def _account(self, flight: Flight, meter: Meter) -> bool:
        """Fills the meter; False when it cannot be known yet whether the request generated anything."""
        services, ticket = self._services, flight.ticket
        waited_out = time.time() * 1000 - flight.started_millis > services.settings.recovery_grace_seconds * 1000
        try:
            summary = await services.engine.generated(ticket.request_id)
        except EngineUnavailable:
            if not waited_out:
                return False
            summary = None
        if summary is not None:
            if summary["final"]:
                meter.add(summary)
                return True
            await services.engine.abort(ticket.request_id)
            return False
        await self._settling.from_tally(ticket, meter)
        return waited_out
