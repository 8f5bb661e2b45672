"""Ranking the owner of a fact among served scores."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import openai
import pytest

from loadtest.bench_attribution import Asked, ask, measure, wilson

QUESTION = {"prompt": "Which?", "answer": "Red.", "value": "red", "contributor": "bob"}


def asked(scores: dict[str, int]) -> Asked:
    """`ask` against a server that answers with these scores."""
    rows = [{"contributor": name, "score": score} for name, score in scores.items()]
    choice = {"index": 0, "message": {"role": "assistant", "content": "It is Red."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    reply = json.dumps(body | {"attribution": {"contributors": rows}}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()

    async def once() -> Asked:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="k") as client:
            return await ask(client, "m", QUESTION, asyncio.Semaphore(1))

    try:
        return asyncio.run(once())
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("scores", "rank", "first"),
    [
        ({"ann": 1, "bob": 5, "cyd": -3}, 1, 1),
        ({"ann": 9, "bob": 5, "cyd": 7}, 3, 0),
        ({"ann": 5, "bob": 5, "cyd": 5}, 2, 1 / 3),
        ({"ann": 0, "bob": 0, "cyd": -1}, 1.5, 1 / 2),
    ],
    ids=["first", "last", "all tied", "two tied"],
)
def test_ties_are_no_hits(scores: dict[str, int], rank: float, first: float) -> None:
    """A scorer that cannot tell contributors apart scores at chance, not at 1."""
    one = asked(scores)
    assert (one.rank, one.first, one.right) == (rank, first, True)


def test_recall_and_mrr_over_all_and_over_right_answers() -> None:
    """Wrong answers count in the first row only."""
    hit = Asked("q", "red", "bob", True, 1, 1, 3)
    miss = Asked("q", "blue", "bob", False, 4, 0, 3)
    result = measure([hit, hit, hit, miss])
    assert (result["all"]["recall_at_1"], result["right"]["recall_at_1"]) == (0.75, 1.0)
    assert result["all"]["mrr"] == pytest.approx((3 + 1 / 4) / 4)


def test_the_wilson_interval_is_the_published_one() -> None:
    """45 of 48: 0.8317 to 0.9785 (Wilson 1927), and it never leaves [0, 1]."""
    low, high = wilson(45 / 48, 48)
    assert (round(low, 3), round(high, 3)) == (0.832, 0.979)
    assert wilson(1.0, 10)[1] == pytest.approx(1)
