"""Every way vLLM can produce a token: each token's served scores equal a recomputation from scratch.

One engine with fewer slots than adapters, steps shorter than prompts, and less KV cache than the traffic needs.

All requests of `traffic` run at once, so that adapters, base requests, prefills and decodes share steps.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.gateway.engine.packages import random_package
from tests.gateway.engine.recompute import Recomputer
from tests.gateway.engine.served import Answer, Engine, agree, ask, running_engine, stream, together
from tests.gateway.stack import demo_base

pytestmark = pytest.mark.engine

SLOTS, BLOCK, BLOCKS, STEP_TOKENS = 2, 32, 16, 48
LIMITS = {
    "--slots": SLOTS,
    "--max-num-batched-tokens": STEP_TOKENS,
    "--max-num-seqs": 12,
    "--max-model-len": 448,
    "--block-size": BLOCK,
    "--num-gpu-blocks-override": BLOCKS,
}
HEADS = {  # seed: contributors, k, d, m, r
    "1": (["ada", "bob", "cyd"], 24, 6, 0, 8),
    "2": (["bob", "dee", "eve"], 24, 6, 2, 8),
    "3": ([f"c{i}" for i in range(9)], 10, 0, 0, 4),
    "4": ([], 8, 0, 0, 8),
}
LONG = (
    "Describe the sea, the wind, the waves, the boats, the birds, the sand and the people who walk there at night. " * 4
)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of two head shapes, two ranks, and one without head, where the engine looks for them."""
    data = tmp_path_factory.mktemp("matrix") / "data"
    made = {}
    for seed, (contributors, k, d, m, r) in HEADS.items():
        made[seed] = random_package(
            demo_base(), data / "adapters" / (seed * 64), seed=int(seed), contributors=contributors, k=k, d=d, m=m, r=r
        )
    return made


@pytest.fixture(scope="module")
def engine(packages: dict[str, Path]) -> Iterator[Engine]:
    with running_engine(
        packages["1"].parent.parent, demo_base(), *(str(part) for pair in LIMITS.items() for part in pair)
    ) as up:
        yield up


@pytest.fixture(scope="module")
def recomputer() -> Recomputer:
    return Recomputer(demo_base())


@pytest.fixture(scope="module", autouse=True)
def answers(engine: Engine, packages: dict[str, Path]) -> dict[str, Answer]:
    """The traffic's answers by name."""
    return asyncio.run(traffic(engine, packages))


async def traffic(engine: Engine, packages: dict[str, Path]) -> dict[str, Answer]:
    """Everything at once, then what needs a filled prefix cache."""
    one, two, three, bare = (packages[seed] for seed in HEADS)
    base = "smollm2-135m-instruct"

    def to(package: Path | None, prompt: str | list[str], how=ask, **body):
        return how(http, package.name if package else base, prompt, package=package, **body)

    async with engine.client() as http:
        named = {
            "plain": to(one, "Name a colour."),
            "base": to(None, "Name a colour.", max_tokens=40, ignore_eos=True),
            "without head": to(bare, "Name a colour."),
            "another head": to(two, "Name a colour.", max_tokens=24),
            "another shape": to(three, "Name a colour.", max_tokens=24),
            "stream": to(two, "Tell me about dogs.", stream, max_tokens=24),
            "two choices": to(one, "Tell me about cats.", n=2, temperature=0.9, max_tokens=20),
            "two choices streamed": to(three, "Tell me about cats.", stream, n=2, temperature=0.9, max_tokens=20),
            "stop string": to(two, "Count: one, two, three, four.", stop=["e"], max_tokens=40),
            "stop string streamed": to(one, "Count: one, two, three, four.", stream, stop=["er", " th"], max_tokens=40),
            "aborted": to(one, "Write a poem.", stream, abort_after=5, max_tokens=200, ignore_eos=True),
            "logprobs": to(three, "What is rain?", logprobs=True, top_logprobs=3),
            "json": to(one, "Invent a person, as JSON.", max_tokens=60,
                       response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}),
            "sampling": to(two, "Tell me a joke.", temperature=0.8, top_p=0.9, top_k=40, max_tokens=24,
                           presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.2),
            "seed": to(three, LONG, temperature=0.8, seed=7, max_tokens=8),
            "long prompt": to(one, LONG),
            "two prompts": to(two, ["The sea is", "In the morning"], max_tokens=12),
        }  # fmt: skip
        for index in range(8):  # together more than the KV cache holds
            package = (one, two, three)[index % 3]
            named[f"crowd {index}"] = to(package, f"Tell me story number {index}.", max_tokens=64, ignore_eos=True)
        found = dict(zip(named, await together(*named.values()), strict=True))
        found["cached prompt"] = await to(one, LONG, max_tokens=6)
        found["cached prompt again"] = await to(one, LONG, max_tokens=6)
        found["same prompt, other adapter"] = await to(two, LONG, max_tokens=6)
    return found


def scored(answers: dict[str, Answer]) -> dict[str, Answer]:
    return {name: a for name, a in answers.items() if a.package is not None and a.meter.get("contributors")}


def test_every_request_was_answered_and_every_token_scored(answers: dict[str, Answer]) -> None:
    """Counts agree with vLLM's own; no token of an adapter with a head goes without scores."""
    for name, answer in answers.items():
        assert answer.status == 200, (name, answer.body)
        meter = answer.meter
        assert meter["unscored_tokens"] == 0, name
        assert meter["completion_tokens"] == sum(len(choice["token_ids"]) for choice in meter["choices"]) > 0, name
        if answer.body:
            assert meter["completion_tokens"] == answer.body["usage"]["completion_tokens"], name
    for name in ("base", "without head"):
        assert answers[name].meter["choices"][0]["scores"] is None


def test_served_scores_equal_the_recomputed(
    answers: dict[str, Answer], packages: dict[str, Path], recomputer: Recomputer
) -> None:
    """Every token of every choice; the METER's sums are the sums of what was served, to the rounding of single tokens
    where contributors are factored."""
    tokens = 0
    for name, answer in scored(answers).items():
        sums = torch.zeros(len(answer.meter["contributors"]), dtype=torch.float64)
        assert answer.package is not None
        for prompt, token_ids, served in answer.rows():
            assert agree(served, recomputer.scores(answer.package, prompt, token_ids)), name
            sums += served.sum(0)
            tokens += len(token_ids)
        off = ((sums * 1e6).round() - torch.tensor(answer.meter["score_sums"])).abs().max()
        assert off <= ((answer.meter["completion_tokens"] + 1) / 2 if answer.package == packages["2"] else 0), name
    assert tokens > 700


def test_the_comparison_notices_wrong_heads_and_shifted_rows(
    answers: dict[str, Answer], packages: dict[str, Path], recomputer: Recomputer, tmp_path: Path
) -> None:
    """The same recorded numbers fail against another adapter's head, against rows moved by one, and against
    another choice's tokens."""
    [(prompt, token_ids, served)] = answers["another head"].rows()
    swapped = tmp_path / "swapped"
    shutil.copytree(packages["2"], swapped)
    shutil.copy(packages["1"] / "attribution_head.safetensors", swapped)
    assert not agree(served, recomputer.scores(swapped, prompt, token_ids))
    want = recomputer.scores(packages["2"], prompt, token_ids)
    assert agree(served, want)
    assert not agree(served.roll(1, 0), want)
    assert not agree(served[1:], want)
    (prompt, ours, served), (_, others, _) = answers["two choices"].rows()
    assert ours != others
    length = min(len(ours), len(others))
    assert not agree(served[:length], recomputer.scores(packages["1"], prompt, others[:length]))


def test_the_traffic_was_what_it_claims(answers: dict[str, Answer], engine: Engine) -> None:
    """Chunks, preemption, cache hits, stop strings, the abort and the grammar did happen, with more adapters than
    slots."""
    assert engine.metric("vllm:num_preemptions_total") > 0
    assert len(answers["long prompt"].prompt_ids[0]) > 1.5 * STEP_TOKENS
    assert answers["cached prompt again"].meter["cached_tokens"] >= BLOCK
    assert answers["same prompt, other adapter"].meter["cached_tokens"] == 0
    assert answers["stop string"].meter["choices"][0]["finish_reason"] == "stop"
    assert "e" not in answers["stop string"].body["choices"][0]["message"]["content"]
    aborted = answers["aborted"].meter
    assert 5 <= aborted["completion_tokens"] < 200
    assert aborted["choices"][0]["finish_reason"] == "abort"
    assert answers["json"].body["choices"][0]["message"]["content"].startswith("{")
    assert answers["logprobs"].body["choices"][0]["logprobs"]["content"]
    assert len(answers["two choices"].meter["choices"]) == len(answers["two choices streamed"].meter["choices"]) == 2
    adapters = engine.residency().values()
    assert sorted(one["place"] for one in adapters) == ["host"] * (len(HEADS) - SLOTS) + ["slot"] * SLOTS
    assert all(one["leases"] == 0 for one in adapters)
