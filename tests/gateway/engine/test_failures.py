"""What goes wrong with one adapter, one request or the whole engine, and who notices."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gateway.engine.tally import read_totals
from tests.gateway.engine.packages import random_package
from tests.gateway.engine.recompute import Recomputer
from tests.gateway.engine.served import Answer, Engine, agree, ask, request_id, running_engine, stream, together
from tests.gateway.stack import demo_base

pytestmark = pytest.mark.engine

HEAD, WEIGHTS = "attribution_head.safetensors", "adapter_model.safetensors"
SLOTS, GOOD = 2, 4
HEADROOM = 10 << 20  # what the worker may still take when an adapter needs twice as much
DIRECTIONS = 8192  # of a head: with them a package takes 15 MB


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good packages, named by their seed."""
    directory = tmp_path_factory.mktemp("failures") / "data" / "adapters"
    for seed in range(GOOD):
        random_package(
            demo_base(),
            directory / (str(seed) * 64),
            seed=seed,
            contributors=["ada", "bob"],
            d=DIRECTIONS,
            layers=range(26, 30),
        )
    return directory


@pytest.fixture(scope="module")
def engine(adapters: Path) -> Iterator[Engine]:
    """Two slots, and host memory for three adapters."""
    size = sum(file.stat().st_size for file in (adapters / ("0" * 64)).glob("*.safetensors"))
    rounded_up = 6 * 24 * DIRECTIONS * 4  # the head's K in memory is that of 8 contributors
    mib = -(-3 * (size + rounded_up + 100_000) >> 20)
    with running_engine(adapters.parent, demo_base(), "--slots", str(SLOTS), "--host-mib", str(mib)) as up:
        yield up


def good(seed: int) -> str:
    return str(seed) * 64


def broken(adapters: Path, name: str, change) -> str:
    """A copy of package 0 in which `change` has spoilt something; returns its digest."""
    package = adapters / (name * 64)
    shutil.copytree(adapters / good(0), package)
    change(package)
    return package.name


def rewrite(file: Path, **changed: torch.Tensor) -> None:
    with safe_open(file, framework="pt") as tensors:
        metadata = tensors.metadata()
    save_file(load_file(file) | changed, file, metadata)


def narrow_K(package: Path) -> None:
    K = load_file(package / HEAD)["K"]
    rewrite(package / HEAD, K=K[..., :-1, :].contiguous())


def wide_rank(package: Path) -> None:
    H = load_file(package / HEAD)["H"]
    rewrite(package / HEAD, H=torch.cat([H, H], dim=1).contiguous())


def strange_tap(package: Path) -> None:
    with safe_open(package / HEAD, framework="pt") as tensors:
        metadata = tensors.metadata()
    taps = ["model.layers.0.nowhere", *json.loads(metadata["taps"])[1:]]
    save_file(load_file(package / HEAD), package / HEAD, metadata | {"taps": json.dumps(taps)})


def enormous(file: Path) -> None:
    """A head of more tap directions than the worker may take memory for."""
    with safe_open(file, framework="pt") as tensors:
        metadata = tensors.metadata()
    taps, contributors = json.loads(metadata["taps"])[:1], len(json.loads(metadata["contributors"]))
    d = 2 * HEADROOM // (4 * (8 + contributors))
    tensors = {"K": torch.zeros(contributors, 1, 1, d), "P": torch.randn(576, 1), "H": torch.zeros(1, 8, d)}
    save_file(tensors, file, metadata | {"taps": json.dumps(taps)})


def cut(file: str):
    return lambda package: (package / file).write_bytes((package / file).read_bytes()[:-1000])


def wrong_width(package: Path) -> None:
    name = next(key for key in load_file(package / WEIGHTS) if "q_proj.lora_A" in key)
    rewrite(package / WEIGHTS, **{name: torch.zeros(8, 99)})


def wrong_module(package: Path) -> None:
    tensors = {key.replace("layers.26.", "layers.99."): t for key, t in load_file(package / WEIGHTS).items()}
    save_file(tensors, package / WEIGHTS, {"format": "pt"})


def large_rank(package: Path) -> None:
    config = json.loads((package / "adapter_config.json").read_text())
    (package / "adapter_config.json").write_text(json.dumps(config | {"r": 64}))


SPOILT = {
    "a": ("head of a wrong shape", narrow_K),
    "b": ("head of a higher rank than the adapter", wide_rank),
    "c": ("head for a module the base lacks", strange_tap),
    "d": ("head cut short", cut(HEAD)),
    "e": ("weights cut short", cut(WEIGHTS)),
    "f": ("weights of a wrong width", wrong_width),
    "9": ("weights for a layer the base lacks", wrong_module),
    "8": ("rank above the engine's", large_rank),
    "7": ("no configuration", lambda package: (package / "adapter_config.json").unlink()),
}


def run(engine: Engine, *requests) -> list[Answer]:
    """Requests given as functions of a client, all at once."""

    async def all_at_once() -> list[Answer]:
        async with engine.client() as http:
            return await together(*(request(http) for request in requests))

    return asyncio.run(all_at_once())


def neighbour(http: httpx.AsyncClient):
    """A long request that must not notice."""
    return stream(http, good(1), "Tell me a story.", max_tokens=60, ignore_eos=True)


def unharmed(answer: Answer) -> bool:
    return answer.meter["completion_tokens"] == 60 and answer.meter["unscored_tokens"] == 0


def test_an_adapter_that_does_not_fit_fails_its_own_requests(engine: Engine, adapters: Path) -> None:
    """Nine ways to be wrong: each a named error, while a neighbour in the same engine generates on."""
    names = {broken(adapters, letter, change): case for letter, (case, change) in SPOILT.items()}
    answer, *refused = run(engine, neighbour, *(lambda http, n=name: ask(http, n, "Hello") for name in names))
    for refusal, case in zip(refused, names.values(), strict=True):
        assert (refusal.status, refusal.body["error"]["code"]) == (422, "adapter_invalid"), (case, refusal.body)
        assert refusal.body["error"]["param"] == "model"
    assert unharmed(answer)


def test_an_adapter_deleted_while_its_request_waits(engine: Engine, adapters: Path) -> None:
    """All memory is leased when it arrives, and it is gone from disk when its turn comes: 404 for it alone."""
    doomed = broken(adapters, "6", lambda package: None)

    async def scenario() -> tuple[list[Answer], Answer]:
        async with engine.client() as http:
            busy = [
                asyncio.create_task(stream(http, good(seed), "Tell a story.", max_tokens=60, ignore_eos=True))
                for seed in range(3)
            ]
            while sum(one["leases"] for one in engine.residency().values()) < 3:
                await asyncio.sleep(0.05)
            waiting = asyncio.create_task(ask(http, doomed, "Hello"))
            await asyncio.sleep(0.3)
            shutil.rmtree(adapters / doomed)
            return await together(*busy), await waiting

    busy, refusal = asyncio.run(scenario())
    assert (refusal.status, refusal.body["error"]["code"]) == (404, "adapter_not_found")
    assert all(unharmed(answer) for answer in busy)


def test_an_adapter_deleted_while_it_is_used(engine: Engine, adapters: Path) -> None:
    """What is in memory is served to the end, also by requests that are still queued for a slot."""
    moved = adapters.parent / "moved"

    async def scenario() -> list[Answer]:
        async with engine.client() as http:
            tasks = [
                asyncio.create_task(ask(http, good(seed), f"Story {i}.", max_tokens=20, ignore_eos=True))
                for i in range(3)
                for seed in (0, 1, 2)
            ]
            while sum(one["leases"] for one in engine.residency().values()) < 9:
                await asyncio.sleep(0.02)
            shutil.move(adapters / good(2), moved)
            return await together(*tasks)

    try:
        answers = asyncio.run(scenario())
    finally:
        shutil.move(moved, adapters / good(2))
    assert [answer.status for answer in answers] == [200] * 9
    assert all(answer.meter["unscored_tokens"] == 0 for answer in answers)


def test_more_adapters_at_once_than_slots_and_memory(engine: Engine, adapters: Path) -> None:
    """Four adapters in two slots and room for three: everyone is served, by their own adapter."""
    requests = [
        lambda http, s=seed, i=i: ask(http, good(s), f"Name {i} colours.", max_tokens=10, package=adapters / good(s))
        for i in range(3)
        for seed in range(GOOD)
    ]
    answers = run(engine, *requests)
    recomputer = Recomputer(demo_base())
    for answer in answers:
        assert answer.status == 200, answer.body
        assert answer.meter["adapter"] == answer.package.name
        [(prompt, tokens, served)] = answer.rows()
        assert agree(served, recomputer.scores(answer.package, prompt, tokens))


def test_out_of_memory_while_an_adapter_is_loaded(engine: Engine, adapters: Path) -> None:
    """The worker may take no more memory than a head needs: a named error for it alone, and nothing is kept."""
    greedy = broken(adapters, "5", lambda package: enormous(package / HEAD))
    worker = next(p for p in psutil.Process(engine.process.pid).children(recursive=True) if "Worker" in p.name())
    before, limits = engine.get("/openledger/engine").json()["attribution"], worker.rlimit(psutil.RLIMIT_AS)

    async def scenario() -> tuple[Answer, Answer]:
        async with engine.client() as http:
            other = asyncio.create_task(neighbour(http))
            while not any(one["leases"] for one in engine.residency().values()):
                await asyncio.sleep(0.05)
            worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms + HEADROOM, limits[1]))
            try:
                return await ask(http, greedy, "Hello"), await other
            finally:
                worker.rlimit(psutil.RLIMIT_AS, limits)

    refusal, answer = asyncio.run(scenario())
    assert (refusal.status, refusal.body["error"]["code"]) == (503, "adapter_load_failed"), refusal.body
    assert "out of memory" in refusal.body["error"]["message"]
    assert unharmed(answer)
    after = engine.get("/openledger/engine").json()
    assert after["attribution"]["head_bytes"] <= before["head_bytes"] + HEADROOM // 8
    assert after["residency"]["host_bytes"] < after["residency"]["host_limit_bytes"]
    [served] = run(engine, lambda http: ask(http, good(0), "Hello", package=adapters / good(0)))
    assert (served.status, served.meter["unscored_tokens"]) == (200, 0)


def test_a_client_that_disconnects_leaves_no_lease(engine: Engine) -> None:
    """Its tokens are counted, its adapter may leave."""

    async def leave() -> str:
        own = request_id()
        body = {"model": good(0), "prompt": "Once", "max_tokens": 400, "stream": True, "ignore_eos": True}
        async with (
            engine.client() as http,
            http.stream("POST", "/v1/completions", json=body, headers={"x-openledger-request": own}) as response,
        ):
            async for _ in response.aiter_lines():
                break
        await asyncio.sleep(2)
        return own

    own = asyncio.run(leave())
    assert all(one["leases"] == 0 for one in engine.residency().values())
    assert 0 < engine.get(f"/openledger/generated/{own}").json()["completion_tokens"] < 400


def test_an_engine_killed_in_the_middle_of_a_stream(engine: Engine) -> None:
    """The client sees its stream break, and no token reached it that the tally had not counted. Runs last."""

    async def cut_off() -> tuple[str, int]:
        own, received = request_id(), 0
        body = {"model": good(0), "prompt": "Once", "max_tokens": 400, "stream": True, "ignore_eos": True}
        headers = {"x-openledger-request": own}
        async with (
            engine.client() as http,
            http.stream("POST", "/v1/completions", json=body, headers=headers) as response,
        ):
            lines = response.aiter_lines()
            while received < 5:
                line = await anext(lines)
                if '"final":false' in line:
                    received = json.loads(line.removeprefix("data: "))["completion_tokens"]
            os.kill(engine.process.pid, signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                _ = [line async for line in lines]
        return own, received

    family = psutil.Process(engine.process.pid).children(recursive=True)
    own, received = asyncio.run(cut_off())
    assert received >= 5
    assert read_totals(engine.data / "engine" / "tally")[own] >= received
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
