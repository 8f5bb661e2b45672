"""kill -9 of any process, at any moment: nothing acknowledged is lost, and the books balance."""

import contextlib
import json

import httpx
import openai
import pytest

from tests.gateway.stack import ENGINE, GATEWAY, SETTLER, Stack, eventually

pytestmark = pytest.mark.engine

STORY = [{"role": "user", "content": "Tell me a long story."}]


@pytest.mark.parametrize("target", [GATEWAY, SETTLER, ENGINE])
@pytest.mark.parametrize("after", [1, 12])
def test_a_kill_in_the_middle_of_a_stream(stack: Stack, target: str, after: int) -> None:
    """What was answered before is on a receipt; what was being generated is metered; the check is clean."""
    before = stack.sdk().chat.completions.create(model=stack.model, messages=STORY, max_tokens=5)
    stream = stack.sdk().chat.completions.create(
        model=stack.model, messages=STORY, stream=True, max_tokens=60, extra_body={"ignore_eos": True}
    )
    received, broke = [], False
    try:
        for chunk in stream:
            received.append(chunk)
            if len(received) == after:
                stack.kill(target)
    except openai.APIError:
        broke = True
    assert broke == (target != SETTLER)
    stack.wait_ready()
    assert stack.receipt(before.id)["body"]["event"]["data"]["completion_tokens"] == 5
    metered = stack.receipt(received[0].id, 60)["body"]["event"]["data"]["completion_tokens"]
    assert metered >= len(received) - 1
    assert metered == 60 or broke
    report = stack.check()
    assert report["clean"], report["findings"]


def test_a_kill_between_many_requests(stack: Stack) -> None:
    """The gateway dies under eight streams; each is metered once, the wallet's holds are released."""
    streams = [
        stack.sdk().completions.create(
            model=stack.model, prompt="Once", stream=True, max_tokens=40, extra_body={"ignore_eos": True}
        )
        for _ in range(8)
    ]
    ids = [next(iter(stream)).id for stream in streams]
    stack.kill(GATEWAY)
    stack.wait_ready()
    for request_id in ids:
        assert stack.receipt(request_id, 60)["body"]["event"]["data"]["completion_tokens"] >= 1
    report = stack.check()
    assert report["clean"], report["findings"]
    with stack.http() as http:
        assert http.get("/accounts/demo-client").json()["wallet"]["held_nanos"] == 0


@pytest.mark.parametrize("target", [GATEWAY, ENGINE])
def test_a_key_is_charged_once_when_its_first_answer_is_cut_off(stack: Stack, target: str) -> None:
    """The retry gets a whole answer and pays for it; what the first try generated is metered as lost, at no price."""
    client = "cut-off-" + {GATEWAY: "gateway", ENGINE: "engine"}[target]
    key = stack.account(client)
    body = {"model": stack.model, "prompt": "Once", "max_tokens": 60, "ignore_eos": True, "stream": True}
    headers = {"idempotency-key": "once"}
    with stack.http(key) as http:
        with http.stream("POST", "/completions", json=body, headers=headers) as broken:
            lines = broken.iter_lines()
            first = json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
            stack.kill(target)
            with contextlib.suppress(httpx.HTTPError):
                assert all("receipt_id" not in line for line in lines)
        stack.wait_ready()
        lost = stack.receipt(first["id"], 60)["body"]
        assert lost["event"]["data"]["purpose"] == "lost"
        assert (lost["event"]["data"]["completion_tokens"] > 0, lost["rating"]["total_nanos"]) == (True, 0)
        again = eventually(lambda: http.post("/completions", json=body, headers=headers).raise_for_status(), 60)
        paid = stack.receipt(again.headers["x-request-id"])["body"]
        assert (paid["event"]["data"]["completion_tokens"], paid["event"]["data"]["purpose"]) == (60, "serve")
        assert http.get(f"/accounts/{client}").json()["wallet"]["debits_nanos"] == paid["rating"]["total_nanos"] > 0
    report = stack.check()
    assert report["clean"], report["findings"]
