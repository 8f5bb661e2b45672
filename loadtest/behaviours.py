"""What clients do: wait for a whole answer, read a stream, leave in the middle of it, or read it slowly."""

import random
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from loadtest.errors import Usage
from loadtest.observed import Observed, StreamWatch
from loadtest.prompts import prompt

PATH = "/v1/chat/completions"
SILENCE_SECONDS = 300.0
NARROW_BYTES = 4096
DEFAULT_MIX = {"chat": 2, "stream": 5, "disconnect": 1, "slow": 1}


@dataclass(frozen=True)
class Ask:
    """One request to make. `leave_after` tokens the client goes away; it pauses `pause_seconds` after each piece."""

    behaviour: str
    model: str
    body: dict[str, Any] = field(repr=False)
    leave_after: int | None = None
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Workload:
    """How requests are made. `token_ids` asks the server for token ids, so that this client can count tokens itself."""

    mix: dict[str, int]
    prompt_words: int = 40
    max_tokens: int = 32
    pause_seconds: float = 0.2
    token_ids: bool = True

    def ask(self, rng: random.Random, model: str) -> Ask:
        """A random request: behaviour by weight; a client that leaves does so at a random token."""
        return self.ask_as(rng.choices(list(self.mix), weights=list(self.mix.values()))[0], rng, model)

    def ask_as(self, behaviour: str, rng: random.Random, model: str) -> Ask:
        """A random request of one behaviour."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": prompt(rng, self.prompt_words)}],
            "max_tokens": rng.randint(max(1, self.max_tokens // 2), self.max_tokens),
        }
        if behaviour != "chat":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.token_ids:
            body["return_token_ids"] = True
        leave_after = rng.randint(1, max(1, body["max_tokens"] - 1)) if behaviour == "disconnect" else None
        return Ask(behaviour, model, body, leave_after, self.pause_seconds if behaviour == "slow" else 0.0)


def parse_mix(text: str) -> dict[str, int]:
    """`chat=2,stream=5,disconnect=1,slow=1`: integer weights. Raises Usage."""
    mix: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition("=")
        if name not in DEFAULT_MIX or not weight.isdecimal():
            raise Usage(f"--mix: {part!r} is not one of {', '.join(DEFAULT_MIX)} with an integer weight")
        mix[name] = int(weight)
    if not any(mix.values()):
        raise Usage("--mix needs a positive weight")
    return mix


def perform(session: Any, ask: Ask, started: float | None = None) -> Observed:
    """Makes the request on a locust HttpSession and returns what was seen. Latencies count from `started`."""
    observed = Observed(ask.behaviour, ask.model, time.perf_counter() if started is None else started)
    with session.post(
        PATH, json=ask.body, name=ask.behaviour, stream=True, catch_response=True, timeout=SILENCE_SECONDS
    ) as response:
        observed.status = response.status_code
        try:
            _read(response, ask, observed)
        except (requests.RequestException, OSError) as error:
            observed.error = f"broken off: {type(error).__name__}: {error}"[:300]
        observed.finished = time.perf_counter()
        if not (observed.complete or observed.left or observed.failed):
            observed.error = "the answer ended without its usage"
        response.request_meta["response_time"] = 1000 * (observed.finished - observed.started)
        if observed.failed:
            response.failure(observed.error)
        else:
            response.success()
    return observed


def _read(response: Any, ask: Ask, observed: Observed) -> None:
    if response.status_code != 200:
        observed.request_id = response.headers.get("x-request-id") if response.status_code else None
        return observed.take_error(response.status_code, response.content if response.status_code else b"no connection")
    observed.request_id = response.headers.get("x-request-id")
    if not ask.body.get("stream"):
        return observed.take_answer(response.content)
    watch = StreamWatch(observed)
    for received in response.iter_content(chunk_size=None):
        watch.feed(received)
        pieces = max(observed.tokens_seen, len(observed.token_times))
        if ask.leave_after is not None and pieces >= ask.leave_after and not observed.complete:
            observed.left = True
            return response.close()
        if ask.pause_seconds:
            time.sleep(ask.pause_seconds)


class NarrowAdapter(HTTPAdapter):
    """Connections with a receive buffer of 4 KiB: a slow reader is felt by the server after a few chunks."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        options["socket_options"] = [(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)]
        super().init_poolmanager(*args, **options)
