"""What a client saw of one request: id, tokens, times, ending. Nothing here comes from the server's books."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from loadtest.sse import DONE, EventReader

Clock = Callable[[], float]


@dataclass
class Observed:
    """One request. Times are seconds of a monotonic clock; `started` is when it was due, not when it could be sent.

    `tokens_seen` counts token ids that arrived. `complete` is True once the whole answer, with its usage, has arrived;
    `left` when this client went away on purpose; `error` says what went wrong otherwise.
    """

    behaviour: str
    model: str
    started: float
    status: int | None = None
    request_id: str | None = None
    answered_model: str | None = None
    receipt_id: str | None = None
    tokens_seen: int = 0
    token_times: list[float] = field(default_factory=list)
    finished: float | None = None
    usage: dict[str, Any] | None = None
    complete: bool = False
    left: bool = False
    error: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def ttft_ms(self) -> float | None:
        """Time to the first token, in ms, of a stream."""
        return 1000 * (self.token_times[0] - self.started) if self.token_times else None

    @property
    def itl_ms(self) -> list[float]:
        """Times between pieces that carry tokens, in ms."""
        return [1000 * (b - a) for a, b in zip(self.token_times, self.token_times[1:], strict=False)]

    @property
    def e2e_ms(self) -> float | None:
        """Time to the last byte of a complete answer, in ms."""
        return 1000 * (self.finished - self.started) if self.finished and self.complete else None

    def take_answer(self, body: bytes) -> None:
        """A whole JSON answer."""
        answer = orjson.loads(body)
        self._identify(answer)
        self._count(answer.get("choices") or ())
        self.usage = answer.get("usage")
        self.complete = self.usage is not None

    def take_error(self, status: int, body: bytes) -> None:
        """A refusal."""
        try:
            error = orjson.loads(body)["error"]
            self.error = f"{status} {error.get('code') or error.get('type')}: {str(error.get('message'))[:200]}"
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            self.error = f"{status}: {body[:200].decode(errors='replace')}"

    def take_event(self, data: bytes, now: float) -> None:
        """One event of a stream that arrived at `now`."""
        if data == DONE:
            self.complete = self.usage is not None and self.error is None
            return
        chunk = orjson.loads(data)
        if chunk.get("error"):
            self.error = f"in the stream: {str(chunk['error'].get('message'))[:200]}"
            return
        self._identify(chunk)
        choices = chunk.get("choices") or ()
        if self._count(choices) or any(_text(choice) for choice in choices):
            self.token_times.append(now)
        self.usage = chunk.get("usage") or self.usage

    def _identify(self, answer: dict[str, Any]) -> None:
        self.request_id = answer.get("id") or self.request_id
        self.answered_model = answer.get("model") or self.answered_model
        self.receipt_id = answer.get("receipt_id") or self.receipt_id

    def _count(self, choices: Any) -> int:
        tokens = sum(len(choice.get("token_ids") or ()) for choice in choices)
        self.tokens_seen += tokens
        return tokens


class StreamWatch:
    """Feeds the bytes of a stream to an Observed, stamped as they arrive."""

    def __init__(self, observed: Observed, clock: Clock = time.perf_counter) -> None:
        self._observed = observed
        self._clock = clock
        self._reader = EventReader()

    def feed(self, received: bytes) -> None:
        now = self._clock()
        for data in self._reader.feed(received):
            self._observed.take_event(data, now)


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    return (delta.get("content") or "") if delta else choice.get("text") or ""
