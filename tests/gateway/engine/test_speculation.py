"""Speculative decoding by n-grams: accepted, rejected and bonus tokens have the scores of a plain decode.

An engine of its own, so not part of every run:  OPENLEDGER_SLOW=1 pytest tests/gateway/engine/test_speculation.py
"""

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.gateway.engine.packages import random_package
from tests.gateway.engine.recompute import Recomputer
from tests.gateway.engine.served import Answer, Engine, agree, ask, running_engine, stream, together
from tests.gateway.stack import demo_base

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not os.environ.get("OPENLEDGER_SLOW"), reason="an engine of its own: OPENLEDGER_SLOW=1"),
]

DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
REPEAT = "Repeat after me, five times: the sea and the wind and the sea and the wind and the sea and the wind."


async def traffic(engine: Engine, one: Path, two: Path) -> list[Answer]:
    async with engine.client() as http:
        return await together(
            *(
                ask(http, package.name, REPEAT, package=package, max_tokens=48, ignore_eos=True)
                for package in (one, two)
            ),
            stream(http, one.name, REPEAT, package=one, max_tokens=48, ignore_eos=True),
            ask(http, two.name, REPEAT, package=two, max_tokens=24, n=2, temperature=0.7),
            ask(http, one.name, REPEAT, package=one, max_tokens=48, stop=["wind"]),
            ask(http, "smollm2-135m-instruct", REPEAT, max_tokens=48, ignore_eos=True),
        )


def test_drafted_tokens_have_the_scores_of_a_plain_decode(tmp_path: Path) -> None:
    """Some drafts are accepted and some are not, in the same steps; every emitted token's scores are exact."""
    data = tmp_path / "data"
    one, two = (
        random_package(demo_base(), data / "adapters" / (seed * 64), seed=int(seed), contributors=["ada", "bob", "cyd"])
        for seed in "12"
    )
    with running_engine(data, demo_base(), "--slots", "2", "--speculative-config", json.dumps(DRAFTS)) as engine:
        answers = asyncio.run(traffic(engine, one, two))
        drafted, accepted = (
            engine.metric(f"vllm:spec_decode_num_{kind}_tokens_total") for kind in ("draft", "accepted")
        )
    assert 0 < accepted < drafted
    recomputer = Recomputer(demo_base())
    for answer in answers:
        assert answer.status == 200, answer.body
        assert answer.meter["unscored_tokens"] == 0
        if answer.package is None:
            continue
        for prompt, tokens, served in answer.rows():
            assert agree(served, recomputer.scores(answer.package, prompt, tokens))
