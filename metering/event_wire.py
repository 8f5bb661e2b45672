"""The usage event's JSON as types that a compiled decoder checks: the rules of metering.event, for sound events.

Texts are checked after decoding. Those that recur from event to event (all but id, time and commitments) are checked
once per combination: 2 us an event, where patterns inside the decoder took 8 us.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder, Encoder

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
REQUEST_ID = re.compile(r"req_[0-9a-f]{32}\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}\Z")
FINISH_REASON = re.compile(r"[a-z][a-z_]{0,31}\Z")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Tokens = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Score = Annotated[int, Meta(ge=-(2**47), le=2**47)]
NAMES_KEPT = 256  # a combination of more is not remembered


class WireData(Struct, frozen=True, forbid_unknown_fields=True):
    """`data`, its members in the order of their canonical bytes."""

    adapter: str | None
    base: str
    cached_tokens: Tokens
    completion_tokens: Tokens
    endpoint: Text
    finish_reasons: tuple[str, ...]
    head: str | None
    idempotency_key_digest: str | None
    key_id: str
    model: Text
    price_book: str
    prompt_tokens: Tokens
    purpose: Literal["serve", "canary", "lost"]
    scores: dict[str, Score]
    tenant: str
    terms: str
    tokens_commitment: str


class WireEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """The envelope."""

    data: WireData
    datacontenttype: Literal["application/json"]
    id: str
    source: Literal["/openledger/gateway"]
    specversion: Literal["1.0"]
    subject: str
    time: str
    type: Literal["org.openledger.usage.v1"]


WIRE_DECODER = Decoder(WireEvent)
WIRE_ENCODER = Encoder(order="deterministic")


def is_sound(wire: WireEvent) -> bool:
    """Whether the texts are what they must be, and the fields agree."""
    data = wire.data
    recurring = (
        data.adapter, data.base, data.endpoint, data.finish_reasons, data.head, data.key_id, data.model,
        data.price_book, data.tenant, data.terms, *data.scores,
    )  # fmt: skip
    few = len(data.scores) + len(data.finish_reasons) <= NAMES_KEPT
    known = _recurring_are_sound if few else _recurring_are_sound.__wrapped__
    return (
        known(recurring)
        and REQUEST_ID.match(wire.id) is not None
        and DIGEST.match(data.tokens_commitment) is not None
        and (data.idempotency_key_digest is None or DIGEST.match(data.idempotency_key_digest) is not None)
        and TIME.match(wire.time) is not None
        and wire.subject == data.tenant
        and data.cached_tokens <= data.prompt_tokens
    )


@lru_cache(maxsize=4096)
def _recurring_are_sound(recurring: tuple[Any, ...]) -> bool:
    adapter, base, endpoint, finish_reasons, head, key_id, model, price_book, tenant, terms, *contributors = recurring
    digests = [value for value in (adapter, base, head, price_book, terms) if value is not None]
    return (
        all(map(DIGEST.match, digests))
        and all(map(NAME.match, (key_id, tenant, *contributors)))
        and all(map(FINISH_REASON.match, finish_reasons))
        and endpoint.isprintable()
        and model.isprintable()
        and (head is None or adapter is not None)
        and (not contributors or head is not None)
    )
