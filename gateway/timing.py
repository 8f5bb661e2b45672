"""Where the time before a request's first byte goes: one Server-Timing header (W3C) a request, and a histogram."""

import time
from dataclasses import dataclass, field

from gateway.metrics import ADDED


@dataclass
class Timing:
    """Moments of one request, in seconds of the performance counter."""

    received: float = field(default_factory=time.perf_counter)
    asked: float = 0.0  # the request is handed to the engine
    accepted: float = 0.0  # a stream: its headers came; a whole answer: all of it

    def ask(self) -> None:
        self.asked = time.perf_counter()

    def accept(self) -> None:
        self.accepted = time.perf_counter()

    def first_byte(self, arrived: float) -> None:
        """The first byte of the body leaves for the client; the engine's came at `arrived`. Observes what we added."""
        ADDED.observe(self.asked - self.received + time.perf_counter() - arrived)

    def headers(self) -> dict[str, str]:
        """In milliseconds: `admission` until the engine is asked, `engine` until it accepted, `settle` until now.

        Of a whole answer, `engine` is all of its generation, and `settle` ends with its durable event.
        """
        moments = self.received, self.asked, self.accepted, time.perf_counter()
        spans = zip(("admission", "engine", "settle"), moments, moments[1:], strict=False)
        spent = ", ".join(f"{name};dur={1000 * (end - start):.3f}" for name, start, end in spans)
        return {"server-timing": spent, "openai-processing-ms": str(round(1000 * (moments[-1] - self.received)))}
