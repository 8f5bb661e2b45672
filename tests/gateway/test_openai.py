"""The openai SDK, unchanged, against the real engine."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest

from tests.gateway.stack import Stack

pytestmark = pytest.mark.engine

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a long story."}]


def test_a_chat_is_answered_with_usage_cost_and_receipt(stack: Stack) -> None:
    """The model is right, the tokens add up, the cost is the price list's, the receipt is the request's."""
    answer = stack.sdk().chat.completions.create(model=stack.model, messages=PARIS, temperature=0)
    assert "Paris" in answer.choices[0].message.content
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    cached = usage.prompt_tokens_details.cached_tokens
    assert usage.cost_nanos == 50 * (usage.prompt_tokens - cached) + 25 * cached + 200 * usage.completion_tokens
    assert answer.receipt_id == answer.id
    event = stack.receipt(answer.receipt_id)["body"]["event"]["data"]
    assert (event["completion_tokens"], event["tenant"]) == (usage.completion_tokens, "demo-client")


def test_a_stream_says_the_same_as_the_whole_answer(stack: Stack) -> None:
    """Same text, same counts; usage and receipt come with the last choice."""
    options = {"model": stack.model, "messages": PARIS, "temperature": 0}
    whole = stack.sdk().chat.completions.create(**options)
    chunks = list(stack.sdk().chat.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].receipt_id == chunks[0].id


def test_include_usage_gives_the_openai_chunk(stack: Stack) -> None:
    """A last chunk without choices carries usage; the one before still carries the receipt."""
    chunks = list(
        stack.sdk().chat.completions.create(
            model=stack.model, messages=PARIS, stream=True, max_tokens=4, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-2].usage is None
    assert chunks[-2].receipt_id == chunks[-1].id


@pytest.mark.parametrize("stream", [False, True])
def test_completions_with_several_prompts_and_choices(stack: Stack, stream: bool) -> None:
    """Four choices for two prompts; every generated token is counted once, every prompt once."""
    answer = stack.sdk().completions.create(
        model=stack.model,
        prompt=["Paris is", "Rome is"],
        n=2,
        max_tokens=3,
        stream=stream,
        extra_body={"ignore_eos": True},
    )
    chunks = list(answer) if stream else [answer]
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1, 2, 3}
    assert (chunks[-1].usage.completion_tokens, chunks[-1].usage.prompt_tokens) == (12, 4)


def test_token_texts_concatenate_to_the_answer(stack: Stack) -> None:
    """`attribution: tokens` lists each emitted token once, also per chunk."""
    options = {"model": stack.model, "messages": PARIS, "temperature": 0, "extra_body": {"attribution": "tokens"}}
    whole = stack.sdk().chat.completions.create(**options)
    listed = whole.choices[0].attribution["tokens"]
    assert "".join(token["token"] for token in listed) == whole.choices[0].message.content
    assert len(listed) == whole.usage.completion_tokens
    chunks = list(stack.sdk().chat.completions.create(**options, stream=True))
    streamed = [
        t for chunk in chunks for t in (getattr(chunk.choices[0], "attribution", None) or {"tokens": []})["tokens"]
    ]
    assert streamed == listed


def test_models_are_listed_and_found(stack: Stack) -> None:
    """By the SDK's own methods."""
    assert stack.model in [model.id for model in stack.sdk().models.list()]
    assert stack.sdk().models.retrieve(stack.model).id == stack.model


def test_rate_limit_headers_are_sent(stack: Stack) -> None:
    """In OpenAI's words."""
    raw = stack.sdk().chat.completions.with_raw_response.create(model=stack.model, messages=PARIS, max_tokens=1)
    limit, left = (int(raw.headers[f"x-ratelimit-{what}-requests"]) for what in ("limit", "remaining"))
    assert 0 <= left < limit
    assert raw.headers["x-request-id"] == raw.parse().id


Create = Callable[..., object]
ERRORS: dict[str, tuple[dict, type[openai.APIStatusError], str | None]] = {
    "unknown model": ({"model": "nope/x"}, openai.NotFoundError, "model_not_found"),
    "bad parameter": ({"temperature": 9}, openai.BadRequestError, None),
    "over length": (
        {"messages": [{"role": "user", "content": "hi " * 5000}]},
        openai.BadRequestError,
        "context_length_exceeded",
    ),
    "too many asked": ({"max_tokens": 10**6}, openai.BadRequestError, "context_length_exceeded"),
    "unknown parameter": ({"extra_body": {"priority": 1}}, openai.BadRequestError, "unknown_parameter"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_sdks_own(stack: Stack, name: str, stream: bool) -> None:
    """Class, code and shape; streaming or not."""
    changed, kind, code = ERRORS[name]
    with pytest.raises(kind) as caught:
        stack.sdk().chat.completions.create(**{"model": stack.model, "messages": PARIS, "stream": stream, **changed})
    assert caught.value.code == code
    assert caught.value.body.keys() == {"message", "type", "param", "code"}


def test_a_wrong_key_is_401(stack: Stack) -> None:
    """AuthenticationError."""
    with pytest.raises(openai.AuthenticationError):
        stack.sdk("sk-ol-wrong").models.list()


def test_bad_json_is_400(stack: Stack) -> None:
    """With a code."""
    with stack.http() as http:
        response = http.post("/chat/completions", content=b"{nope")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


def test_no_credit_is_402_and_nothing_is_generated(stack: Stack) -> None:
    """Also for an account that never had a wallet's worth; the check stays clean."""
    poor = stack.account("poor", credit=None)
    with pytest.raises(openai.APIStatusError) as caught:
        stack.sdk(poor).chat.completions.create(model=stack.model, messages=PARIS)
    assert (caught.value.status_code, caught.value.code) == (402, "insufficient_quota")
    tight = stack.account("tight", credit="0.00001")
    stack.sdk(tight).chat.completions.create(model=stack.model, messages=PARIS, max_tokens=10)
    with pytest.raises(openai.APIStatusError, match="402"):
        stack.sdk(tight).chat.completions.create(model=stack.model, messages=PARIS, max_tokens=100)
    assert stack.check()["clean"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_idempotency_key_replays_and_bills_once(stack: Stack, stream: bool) -> None:
    """Byte for byte the same answer; the wallet moves once; another body is 409."""
    payer = stack.account(f"payer-{stream}".lower())
    body = {"model": stack.model, "messages": PARIS, "temperature": 1, "stream": stream, "max_tokens": 8}
    with stack.http(payer) as http:
        first, second = (http.post("/chat/completions", json=body, headers={"idempotency-key": "k"}) for _ in range(2))
        other = http.post("/chat/completions", json={**body, "n": 2}, headers={"idempotency-key": "k"})
        assert first.content == second.content
        assert second.headers["x-request-id"] == first.headers["x-request-id"]
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
        stack.receipt(first.headers["x-request-id"])
        lines = http.get("/invoices").json()["lines"]
    assert {line["requests"] for line in lines} == {1}


def test_a_client_that_leaves_pays_for_what_was_generated(stack: Stack) -> None:
    """The engine is stopped; the event says abort and counts no more than a few tokens beyond those read."""
    stream = stack.sdk().chat.completions.create(
        model=stack.model, messages=STORY, stream=True, max_tokens=1000, extra_body={"ignore_eos": True}
    )
    chunks = [next(iter(stream)) for _ in range(5)]
    stream.close()
    event = stack.receipt(chunks[0].id)["body"]["event"]["data"]
    assert event["finish_reasons"] == ["abort"]
    assert 3 <= event["completion_tokens"] < 200
    assert stack.check()["clean"]


def test_a_client_that_leaves_a_whole_answer_pays_too(stack: Stack) -> None:
    """A timeout of the SDK is a disconnect."""
    key = stack.account("impatient")
    with pytest.raises(openai.APITimeoutError):
        stack.sdk(key, timeout=1.5).chat.completions.create(
            model=stack.model, messages=STORY, max_tokens=1500, extra_body={"ignore_eos": True}
        )
    deadline = time.monotonic() + 20
    with stack.http(key) as http:
        while not (lines := http.get("/invoices").json()["lines"]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    completion = next(line for line in lines if line["kind"] == "completion")
    assert 0 < completion["quantity"] < 1000
    assert stack.check()["clean"]


def test_with_a_key_the_answer_is_completed_for_the_retry(stack: Stack) -> None:
    """The client's timeout does not lose what it will ask for again; it is billed once."""
    key = stack.account("retrying")
    body = {"model": stack.model, "messages": STORY, "max_tokens": 120, "ignore_eos": True}
    with stack.http(key) as http:
        headers = {"idempotency-key": "again"}
        with pytest.raises(httpx.TimeoutException):
            http.post("/chat/completions", json=body, headers=headers, timeout=0.5)
        deadline = time.monotonic() + 60
        while (answer := http.post("/chat/completions", json=body, headers=headers)).status_code == 409:
            assert answer.json()["error"]["code"] == "idempotency_key_in_use"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert answer.json()["usage"]["completion_tokens"] == 120
        stack.receipt(answer.json()["receipt_id"])
        assert {line["requests"] for line in http.get("/invoices").json()["lines"]} == {1}


def test_receipts_are_private(stack: Stack) -> None:
    """Another tenant's receipt is not found."""
    answer = stack.sdk().chat.completions.create(model=stack.model, messages=PARIS, max_tokens=2)
    stack.receipt(answer.receipt_id)
    with stack.http(stack.account("nosy")) as http:
        assert http.get(f"/receipts/{answer.receipt_id}").status_code == 404


def test_a_receipt_that_was_redirected_to_a_file_verifies(stack: Stack, tmp_path: Path) -> None:
    """`openledger receipt ID > file` is the receipt to the byte; one changed byte is noticed."""
    answer = stack.sdk().chat.completions.create(model=stack.model, messages=PARIS, max_tokens=4)
    shown = stack.cli("receipt", answer.receipt_id)
    file = tmp_path / "receipt.json"
    file.write_text(shown.stdout)
    assert (shown.returncode, stack.cli("verify", str(file)).returncode) == (0, 0)
    file.write_text(shown.stdout.replace('"completion_tokens":4', '"completion_tokens":3'))
    assert stack.cli("verify", str(file)).returncode == 1
