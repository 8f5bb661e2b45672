"""A streamed answer on its way through: chunks are renamed and annotated, the last one is held for the receipt."""

from typing import Any

import orjson

from gateway import sse
from gateway.admission import Admitted
from gateway.closing import Closing
from gateway.errors import GatewayError, from_engine
from gateway.meter import Meter


class StreamAnswer:
    """Turns the engine's events into the client's: `done` once it says so, `refusal` if it reported an error."""

    def __init__(self, admitted: Admitted, meter: Meter) -> None:
        self._admitted = admitted
        self._meter = meter
        self._open_choices = admitted.generation.choices
        self._held: list[dict[str, Any]] = []
        self.done = False
        self.refusal: GatewayError | None = None

    def take(self, event: sse.Event) -> bytes:
        """What may be sent now because of one event of the engine; often nothing."""
        if event.name == "openledger":
            self._meter.add(orjson.loads(event.data))
        elif event.data == b"[DONE]":
            self.done = True
        else:
            return self._chunk(orjson.loads(event.data))
        return b""

    def last(self, closing: Closing) -> bytes:
        """The held chunks with usage, attribution and receipt id, the usage chunk if asked for, and [DONE]."""
        held = self._held or [self._named({"choices": [], "object": self._object})]
        final = held[-1]
        for choice in final["choices"]:
            self._annotate(choice)
        shown = dict(closing.shown)
        usage = shown.pop("usage")
        final |= shown
        events = [sse.write(chunk) for chunk in held]
        if self._admitted.generation.include_usage:
            events.append(sse.write(self._named({"object": self._object, "choices": [], "usage": usage} | shown)))
        else:
            final["usage"] = usage
            events[-1] = sse.write(final)
        return b"".join(events) + sse.DONE

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        if "error" in chunk:
            code = chunk["error"].get("code") if isinstance(chunk["error"], dict) else None
            self.refusal = from_engine(code if isinstance(code, int) else 500, chunk)
            return b""
        choices = chunk.get("choices")
        if not choices:
            return b""  # the engine's own usage chunk; ours is made from the meter
        self._named(chunk)
        for choice in choices:
            if not _only_opens(choice):
                self._annotate(choice)
            self._open_choices -= choice.get("finish_reason") is not None
        if self._admitted.generation.include_usage:
            chunk["usage"] = None
        if self._held or self._open_choices == 0:
            self._held.append(chunk)
            return b""
        return sse.write(chunk)

    def _annotate(self, choice: dict[str, Any]) -> None:
        if self._admitted.generation.token_scores:
            tokens = self._meter.take_tokens(choice["index"])
            if tokens:
                choice.setdefault("attribution", {"tokens": []})["tokens"] += tokens

    def _named(self, chunk: dict[str, Any]) -> dict[str, Any]:
        ticket = self._admitted.ticket
        chunk["id"], chunk["model"] = ticket.request_id, ticket.model
        chunk.setdefault("created", ticket.started_us // 1_000_000)
        return chunk

    @property
    def _object(self) -> str:
        return "chat.completion.chunk" if self._admitted.generation.kind == "chat" else "text_completion"


def _only_opens(choice: dict[str, Any]) -> bool:
    """True for the chunk that names the role: it comes after the first token's scores and before its text."""
    delta = choice.get("delta")
    return delta is not None and "role" in delta and not delta.get("content") and choice.get("finish_reason") is None
