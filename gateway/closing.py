"""What ends an answer: the usage event, and the usage, cost, attribution and receipt id that the client is shown."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.flights import Ticket
from gateway.meter import Meter
from metering.event import UsageEvent, commit_tokens, encode_event
from metering.pricebook import PriceBook, rate
from metering.shares import shares_ppm
from metering.terms import Terms

UNIT = Decimal(10) ** 9


@dataclass(frozen=True)
class Closing:
    """The end of one answer. `record` is what the journal must hold before `shown` may be sent."""

    record: bytes
    shown: dict[str, Any]
    completion_tokens: int

    @property
    def usage(self) -> dict[str, Any]:
        return self.shown["usage"]


def usage_event(ticket: Ticket, meter: Meter, finish: str = "abort") -> UsageEvent:
    """The event of a request: what was admitted, what the engine counted. `finish` is for choices without a reason."""
    choices = sorted(meter.token_ids)
    return UsageEvent(
        id=ticket.request_id,
        time_unix_us=time.time_ns() // 1000,
        tenant=ticket.account,
        key_id=ticket.key_id,
        model=ticket.model,
        endpoint=ticket.endpoint,
        base=ticket.base,
        adapter=ticket.adapter,
        head=ticket.head,
        terms=ticket.terms,
        price_book=ticket.price_book,
        prompt_tokens=meter.prompt_tokens,
        cached_tokens=meter.cached_tokens,
        completion_tokens=meter.completion_tokens,
        finish_reasons=tuple(meter.finish_reasons.get(index, finish) for index in choices),
        tokens_commitment=commit_tokens(bytes.fromhex(ticket.salt), meter.choices_token_ids(), meter.prompts),
        scores=meter.scores_by_contributor() if ticket.head else {},
        purpose=ticket.purpose,
        idempotency_key_digest=ticket.idempotency_key_digest,
    )


def close(
    ticket: Ticket,
    meter: Meter,
    terms: Terms,
    prices: PriceBook,
    finish: str = "abort",
    volumes_of: Callable[[UsageEvent], Mapping[str, int]] | None = None,
) -> Closing:
    """The closing of a request whose generation has ended. `volumes_of` an event choose among tiers of prices."""
    event = usage_event(ticket, meter, finish)
    volumes = volumes_of(event) if volumes_of and prices.prices(event.adapter).tiers else None
    cost_nanos = rate(event, prices, volumes).total_nanos
    usage = {
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "total_tokens": event.prompt_tokens + event.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": event.cached_tokens},
        "cost": f"{cost_nanos / UNIT:.9f}",
        "cost_nanos": cost_nanos,
        "currency": prices.currency,
    }
    shown = {
        "usage": usage,
        "attribution": attribution(event, terms)
        | ({"composed_of": dict(ticket.composed_of)} if ticket.composed_of else {}),
        "receipt_id": event.id,
        "receipt_salt": ticket.salt,
    }
    return Closing(encode_event(event), shown, event.completion_tokens)


def attribution(event: UsageEvent, terms: Terms) -> dict[str, Any]:
    """Signed scores in micro-nats and provisional shares; final shares come when the settlement window closes."""
    shares = shares_ppm(event.scores, terms.declared, terms.fidelity_ppm)
    contributors = [
        {"contributor": name, "score": event.scores.get(name, 0), "share_ppm": share_ppm}
        for name, share_ppm in shares.items()
    ]
    return {
        "method": terms.method,
        "fidelity_ppm": terms.fidelity_ppm,
        "adapter": event.adapter,
        "head": event.head,
        "terms": event.terms,
        "contributors": sorted(contributors, key=lambda row: (-row["score"], -row["share_ppm"], row["contributor"])),
    }
