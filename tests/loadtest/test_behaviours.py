"""What clients ask for, and how they behave, against recorded bytes."""

import random
from collections import Counter
from typing import Any

import orjson
import pytest
import requests

from loadtest.behaviours import Workload, parse_mix, perform
from loadtest.errors import Usage
from loadtest.popularity import picks

USAGE = {"prompt_tokens": 4, "completion_tokens": 3}


class Recorded:
    """A locust response that replays pieces; raises `broken` after them."""

    def __init__(self, pieces: list[bytes], status: int = 200, broken: Exception | None = None) -> None:
        self.pieces, self.status_code, self.broken = pieces, status, broken
        self.headers = {"x-request-id": "req_1"}
        self.request_meta: dict[str, Any] = {}
        self.given: list[bytes] = []
        self.closed, self.outcome = False, ""

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(self, *exception: object) -> None: ...

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)

    def iter_content(self, chunk_size: int | None) -> Any:
        for one in self.pieces:
            self.given.append(one)
            yield one
        if self.broken:
            raise self.broken

    def close(self) -> None:
        self.closed = True

    def success(self) -> None:
        self.outcome = "success"

    def failure(self, error: str) -> None:
        self.outcome = f"failure: {error}"


class Session:
    """Answers every post with one recorded response."""

    def __init__(self, response: Recorded) -> None:
        self.response = response

    def post(self, path: str, **options: Any) -> Recorded:
        assert path == "/v1/chat/completions"
        return self.response


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else orjson.dumps({"id": "req_1", **value})) + b"\n\n"


TOKENS = [event({"choices": [{"index": 0, "delta": {"content": "x"}, "token_ids": [n]}]}) for n in range(3)]
STREAM = [*TOKENS, event({"choices": [], "usage": USAGE, "receipt_id": "req_1"}), event(b"[DONE]")]


def ask(behaviour: str, **changes: Any):
    made = Workload({behaviour: 1}, max_tokens=8, pause_seconds=0).ask(random.Random(0), "a/b")
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return made


def test_a_reader_of_a_stream_sees_all_of_it() -> None:
    """Three token ids, usage, receipt: complete."""
    response = Recorded(STREAM)
    seen = perform(Session(response), ask("stream"))
    assert (seen.complete, seen.left, seen.tokens_seen, seen.receipt_id) == (True, False, 3, "req_1")
    assert response.outcome == "success"
    assert response.request_meta["response_time"] >= 0


def test_a_leaver_closes_after_its_token_and_knows_no_more() -> None:
    """It has read two tokens of three, closed the connection, and is no failure."""
    response = Recorded(STREAM)
    seen = perform(Session(response), ask("disconnect", leave_after=2))
    assert (seen.left, seen.complete, seen.tokens_seen, seen.request_id) == (True, False, 2, "req_1")
    assert response.closed
    assert len(response.given) == 2
    assert response.outcome == "success"


def test_a_leaver_whose_answer_ended_first_is_complete() -> None:
    """A stop token can come before the client wants to go."""
    seen = perform(Session(Recorded(STREAM)), ask("disconnect", leave_after=9))
    assert (seen.left, seen.complete) == (False, True)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Recorded(STREAM[:-1]), "the answer ended without its usage"),
        (Recorded(TOKENS, broken=requests.ConnectionError("reset")), "broken off: ConnectionError: reset"),
        (Recorded([b'{"error":{"code":"rate_limit_exceeded","message":"no"}}'], 429), "429 rate_limit_exceeded: no"),
    ],
)
def test_what_is_not_an_answer_is_a_failure(response: Recorded, error: str) -> None:
    """Also for locust's own statistics."""
    seen = perform(Session(response), ask("stream"))
    assert seen.error == error
    assert response.outcome == f"failure: {error}"


def test_latencies_count_from_when_a_request_was_due() -> None:
    """An open loop that could not send in time does not hide the wait."""
    import time

    due = time.perf_counter() - 5
    assert (perform(Session(Recorded(STREAM)), ask("stream"), due).ttft_ms or 0) > 5000


def test_the_mix_is_read_and_kept() -> None:
    """Weights become shares; a weight of zero never happens."""
    workload = Workload(parse_mix("chat=1, stream=3,slow=0"))
    rng = random.Random(0)
    made = Counter(workload.ask(rng, "a/b").behaviour for _ in range(2000))
    assert set(made) == {"chat", "stream"}
    assert 0.7 < made["stream"] / 2000 < 0.8


@pytest.mark.parametrize("text", ["", "chat", "chat=x", "talk=1", "chat=0,stream=0", "chat=-1"])
def test_a_wrong_mix_is_refused(text: str) -> None:
    """By option."""
    with pytest.raises(Usage, match="--mix"):
        parse_mix(text)


def test_a_plain_request_holds_nothing_beyond_openai() -> None:
    """Against a server that refuses unknown members, token ids are not asked for."""
    body = Workload({"stream": 1}, token_ids=False).ask(random.Random(0), "gpt").body
    assert set(body) == {"model", "messages", "max_tokens", "stream", "stream_options"}


def test_popularity_has_its_shape() -> None:
    """Identical asks for one; in zipf the first of four gets 12/25; uniform asks for all alike."""
    rng, names = random.Random(0), ["a", "b", "c", "d"]
    shares = {kind: Counter(picks(rng, kind, names, 10_000)) for kind in ("identical", "zipf", "uniform")}
    assert set(shares["identical"]) == {"a"}
    assert shares["zipf"]["a"] / 10_000 == pytest.approx(12 / 25, abs=0.02)
    assert all(abs(count / 10_000 - 0.25) < 0.02 for count in shares["uniform"].values())
