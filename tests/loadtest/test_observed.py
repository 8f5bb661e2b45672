"""What a client sees of answers and streams."""

import orjson

from loadtest.observed import Observed, StreamWatch
from loadtest.sse import EventReader

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}}


def stream(*chunks: dict) -> bytes:
    """The bytes of a stream."""
    named = [{"id": "req_1", "model": "a/b", **chunk} for chunk in chunks]
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in named) + b"data: [DONE]\n\n"


def piece(text: str, *ids: int) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text}, "token_ids": list(ids)}]}


def watch(body: bytes, times: list[float], size: int = 1 << 20) -> Observed:
    """A stream fed in pieces of `size` bytes at given times."""
    observed = Observed("stream", "a/b", started=10.0, status=200)
    ticks = iter(times)
    watching = StreamWatch(observed, clock=lambda: next(ticks))
    for begin in range(0, len(body), size):
        watching.feed(body[begin : begin + size])
    return observed


def test_events_survive_any_cut() -> None:
    """The same events come out however the bytes are cut, with either line ending; names and comments are dropped."""
    body = b": hello\r\n\r\nevent: x\r\ndata: one\r\n\r\ndata: two\ndata: lines\n\n"
    for size in range(1, len(body)):
        reader = EventReader()
        pieces = [body[begin : begin + size] for begin in range(0, len(body), size)]
        assert [data for one in pieces for data in reader.feed(one)] == [b"one", b"two\nlines"]


def test_a_stream_is_counted_and_timed() -> None:
    """Tokens are counted by their ids, not by pieces; the role's chunk is no token; usage and receipt end it."""
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    bodies = [role, piece("a", 1), piece("bc", 2, 3), {"choices": [], "usage": USAGE, "receipt_id": "req_1"}]
    observed = Observed("stream", "a/b", started=10.0, status=200)
    for now, chunk in zip([10.1, 10.2, 10.25, 10.3], bodies, strict=True):
        observed.take_event(orjson.dumps({"id": "req_1", "model": "a/b", **chunk}), now)
    assert not observed.complete
    observed.take_event(b"[DONE]", 10.3)
    assert observed.complete
    assert observed.tokens_seen == 3
    assert round(observed.ttft_ms or 0) == 200
    assert [round(gap) for gap in observed.itl_ms] == [50]
    assert (observed.request_id, observed.receipt_id, observed.answered_model) == ("req_1", "req_1", "a/b")


def test_a_token_without_text_counts() -> None:
    """A token that completes no character has an id and no text."""
    observed = watch(stream(piece("", 7), {"choices": [], "usage": USAGE}), [10.5])
    assert observed.tokens_seen == 1
    assert observed.ttft_ms == 500


def test_a_stream_without_usage_is_not_complete() -> None:
    """[DONE] alone does not say what was billed."""
    assert not watch(stream(piece("a", 1)), [10.5]).complete


def test_an_error_in_the_stream_is_a_failure() -> None:
    """A stream that began with 200 can still fail, and then never completes."""
    observed = watch(stream(piece("a", 1), {"error": {"message": "the engine stopped"}}), [10.5])
    assert observed.error == "in the stream: the engine stopped"
    assert not observed.complete


def test_a_whole_answer_is_counted() -> None:
    """Token ids of all choices, usage, receipt."""
    observed = Observed("chat", "a/b", started=0.0, status=200)
    choices = [{"index": n, "message": {"content": "x"}, "token_ids": [1, 2]} for n in range(2)]
    answer = {"id": "req_2", "model": "a/b", "choices": choices, "usage": USAGE, "receipt_id": "req_2"}
    observed.take_answer(orjson.dumps(answer))
    assert (observed.complete, observed.tokens_seen, observed.receipt_id) == (True, 4, "req_2")


def test_refusals_are_named_by_their_code() -> None:
    """OpenAI's error shape gives the code; anything else is shown as it came."""
    observed = Observed("chat", "a/b", started=0.0)
    observed.take_error(429, orjson.dumps({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}))
    assert observed.error == "429 rate_limit_exceeded: slow down"
    observed.take_error(502, b"<html>bad gateway</html>")
    assert observed.error == "502: <html>bad gateway</html>"
