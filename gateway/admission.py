"""Admission: everything that is decided before the engine is asked, ending in one atomic hold of the worst case.

The prompt is counted and not guessed from its bytes: that would have to guess what the chat template and tools add, and
guessing low would let a wallet be overdrawn. Stores are visited once, on one thread: each change of thread costs a
request 0.1 ms on an idle machine and several on a busy one.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

from gateway.accounts import Caller
from gateway.catalog import ServedModel
from gateway.composed_model import composed_model
from gateway.composed_price import check_price
from gateway.errors import ContextLengthExceeded, InsufficientCredit, StoreStopped
from gateway.flights import Ticket
from gateway.limits import Standing
from gateway.parameters import Generation
from gateway.services import Services
from gateway.upstream import PATHS
from metering.ledger import Ledger
from metering.pricebook import worst_case_nanos
from metering.status import Status

SHORT_OF_CREDIT = (Status.INSUFFICIENT_CREDIT, Status.DEBIT_ACCOUNT_UNKNOWN)


@dataclass(frozen=True)
class Admitted:
    """A request that was let in: its ticket, what it asked, what serves it and what its key has left."""

    ticket: Ticket
    generation: Generation
    model: ServedModel
    standing: Standing | None

    @property
    def engine_body(self) -> dict[str, Any]:
        """What the engine is sent; it always streams usage in band, so the client's stream options stay here."""
        generation = self.generation
        limit = "max_completion_tokens" if generation.kind == "chat" else "max_tokens"
        return {
            **generation.passed,
            "model": self.model.engine_name,
            "n": generation.n,
            "stream": generation.stream,
            limit: generation.max_tokens,
        }


async def admit(
    services: Services,
    caller: Caller,
    generation: Generation,
    request_id: str,
    *,
    model: ServedModel | None = None,
    idempotency_key: str | None = None,
    purpose: str = "serve",
) -> Admitted:
    """Lets a request in. `model` spares the look-up by name (a canary has none yet); a canary costs nothing.

    Raises StoreStopped, ModelNotFound, ContextLengthExceeded, RateLimited, InsufficientCredit, EngineUnavailable, what
    `composed_model` and `check_price` raise, or the engine's own refusal.
    """
    if not services.journal.can_accept():
        raise StoreStopped("The usage journal cannot take events now.", retry_after_seconds=5)
    if generation.adapters:
        model = await composed_model(services, caller, generation)
    asked = _Asked(caller, generation, request_id, model, idempotency_key, purpose)
    admitted = None
    if services.prompts.agreed and services.engine.known_context_length:
        admitted = await services.call(_admit, services, asked, None)
    if admitted is None:
        if model is None:
            await services.call(_served, services, asked)  # a wrong name is said before all else
        prompts = await services.engine.count_prompts(services.catalog.base.name, generation)
        await services.engine.context_length()
        await services.prompts.agrees(services.engine)
        admitted = await services.call(_admit, services, asked, prompts)
    assert admitted is not None, "its prompts were counted"
    return admitted


@dataclass(frozen=True)
class _Asked:
    """The parameters of `admit`."""

    caller: Caller
    generation: Generation
    request_id: str
    model: ServedModel | None
    idempotency_key: str | None
    purpose: str


def _admit(services: Services, asked: _Asked, prompts: list[int] | None) -> Admitted | None:
    """What `admit` does in the stores; None when the prompts must be counted by the engine first."""
    caller, generation, purpose = asked.caller, asked.generation, asked.purpose
    served = _served(services, asked)
    prompts = prompts or services.prompts.count(generation)
    if prompts is None:
        return None
    context_length = services.engine.known_context_length
    assert context_length is not None
    limit = completion_limit(max(prompts), generation.max_tokens, services.settings.default_max_tokens, context_length)
    completion_tokens = limit * generation.choices
    standing = None
    if purpose == "serve":
        standing = services.limits.admit(caller.key_id, sum(prompts) + completion_tokens)
    ticket = Ticket(
        request_id=asked.request_id,
        account=caller.account,
        key_id=caller.key_id,
        endpoint=PATHS[generation.kind],
        model=served.name,
        base=served.base,
        adapter=served.adapter_digest,
        head=served.head,
        terms=served.terms.digest,
        price_book=services.prices.digest,
        prompt_tokens=sum(prompts),
        reserved_tokens=sum(prompts) + completion_tokens if standing else 0,
        salt=secrets.token_hex(32),
        started_us=time.time_ns() // 1000,
        purpose=purpose,
        idempotency_key_digest=_digest(asked.idempotency_key),
        composed_of=dict(served.adapter.composed_of) if served.adapter else {},
    )
    amount_nanos = 0
    if purpose == "serve":
        amount_nanos = worst_case_nanos(services.prices, served.adapter_digest, sum(prompts), completion_tokens)
    _hold(services, ticket, amount_nanos)
    return Admitted(ticket, replace(generation, max_tokens=limit), served, standing)


def _served(services: Services, asked: _Asked) -> ServedModel:
    if asked.model is not None:
        return asked.model
    served = services.catalog.resolve(asked.generation.model)
    if served.adapter is not None:
        check_price(services.prices, served.adapter, services.registry.by_digest)
    return served


def completion_limit(prompt_tokens: int, asked: int | None, default: int, context_length: int) -> int:
    """Completion tokens per choice: as asked, or the default cut to what the context leaves."""
    room = context_length - prompt_tokens
    if room < 1 or (asked or 0) > room:
        wanted = f" and {asked} in the completion" if asked else ""
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context_length} tokens. However, you requested"
            f" {prompt_tokens} tokens in the prompt{wanted}. Please reduce the length of either one.",
            param="messages" if asked is None else "max_tokens",
        )
    return asked or min(default, room)


def _hold(services: Services, ticket: Ticket, amount_nanos: int) -> None:
    """Remembers the flight, then takes the hold: a hold without flight could only expire."""
    services.flights.begin(ticket)
    try:
        expires_us = ticket.started_us + int(services.metering.hold_seconds * 1_000_000)
        status = _place(services.ledger, ticket, amount_nanos, expires_us)
        if status in SHORT_OF_CREDIT:
            available = services.ledger.balance(ticket.account).available
            raise InsufficientCredit(
                f"You have {available} nanos of {services.metering.currency} available; this request can cost up to"
                f" {amount_nanos}. Add credit, or lower max_tokens."
            )
        status.require(ticket.request_id)
    except BaseException:
        services.flights.end(ticket.request_id)
        services.limits.refund(ticket.key_id, ticket.reserved_tokens)
        raise


def _place(ledger: Ledger, ticket: Ticket, amount_nanos: int, expires_us: int) -> Status:
    status = ledger.hold(ticket.request_id, ticket.account, amount_nanos, expires_us)
    if status is Status.DEBIT_ACCOUNT_UNKNOWN and amount_nanos == 0:
        ledger.open_wallet(ticket.account)
        return ledger.hold(ticket.request_id, ticket.account, amount_nanos, expires_us)
    return status


def _digest(key: str | None) -> str | None:
    return None if key is None else "sha256:" + hashlib.sha256(key.encode()).hexdigest()
