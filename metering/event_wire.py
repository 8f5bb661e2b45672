"""The usage event's JSON as types that a compiled decoder checks: the rules of metering.event, for sound events."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder, Encoder

Digest = Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
RequestId = Annotated[str, Meta(pattern=r"\Areq_[0-9a-f]{32}\Z")]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,127}\Z")]
FinishReason = Annotated[str, Meta(pattern=r"\A[a-z][a-z_]{0,31}\Z")]
Time = Annotated[str, Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Tokens = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Score = Annotated[int, Meta(ge=-(2**47), le=2**47)]


class WireData(Struct, frozen=True, forbid_unknown_fields=True):
    """`data`, its members in the order of their canonical bytes."""

    adapter: Digest | None
    base: Digest
    cached_tokens: Tokens
    completion_tokens: Tokens
    endpoint: Text
    finish_reasons: tuple[FinishReason, ...]
    head: Digest | None
    idempotency_key_digest: Digest | None
    key_id: Name
    model: Text
    price_book: Digest
    prompt_tokens: Tokens
    purpose: Literal["serve", "canary", "lost"]
    scores: dict[Name, Score]
    tenant: Name
    terms: Digest
    tokens_commitment: Digest


class WireEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """The envelope."""

    data: WireData
    datacontenttype: Literal["application/json"]
    id: RequestId
    source: Literal["/openledger/gateway"]
    specversion: Literal["1.0"]
    subject: str
    time: Time
    type: Literal["org.openledger.usage.v1"]


WIRE_DECODER = Decoder(WireEvent)
WIRE_ENCODER = Encoder(order="deterministic")
