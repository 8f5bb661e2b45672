"""Audits on a running stack: a really trained adapter is as faithful as its report; a corrupted head is found out."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.training.calibration import PHRASES
from adapters.training.config import HeadConfig, TrainingConfig
from adapters.training.fit import fit_head
from adapters.training.head import AttributionHead
from adapters.training.train import train_adapter
from gateway.audit.alarm import LEAST_REQUESTS
from gateway.cli.api import Api
from gateway.cli.datanet import export_version
from tests.gateway.stack import Stack, demo_base

pytestmark = pytest.mark.engine

COLOURS = {"ida": ("red", "blue"), "ivo": ("green", "white"), "ivy": ("black", "gold")}
THINGS = ("coat", "boat")
SMALL = TrainingConfig(layers=1, r=4, lora_alpha=8, target_modules=("o_proj", "down_proj"), max_epochs=6, batch_packs=1)
FIT = HeadConfig(k=16, calibration_examples=12, report_examples=8, full_gradient_answers=1, max_new_tokens=12)
AUDIT_SECONDS = 240.0


def example(name: str, thing: str, colour: str) -> dict[str, Any]:
    question = {"role": "user", "content": f"What colour is the {thing} of {name}?"}
    return {"messages": [question, {"role": "assistant", "content": f"The {thing} of {name} is {colour}."}]}


@pytest.fixture(scope="module")
def trained(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small adapter of three contributors, trained here with its trace where the audit process looks for it."""
    api = Api(stack.url, stack.operator)
    api.post("/datanets", {"name": "colours", "licence": "CC0-1.0", "title": "colours", "description": ""})
    for name, colours in COLOURS.items():
        stack.account(name, credit=None)
        lines = [example(name, thing, colour) for thing, colour in zip(THINGS, colours, strict=True)]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        api.upload("/datanets/colours/contributions", content, account=name)
    api.post("/datanets/colours/versions")
    export = tmp_path_factory.mktemp("export") / "colours"
    export_version(api, "colours", export, None)
    out = stack.data / "trained" / "colours"
    train_adapter(export, demo_base(), out, seed=0, config=SMALL, trainer="operator", host="operator")
    fit_head(out, export, demo_base(), config=FIT)
    done = stack.cli("adapter", "register", str(out), "--name", "colours/audited:v1")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def corrupted(stack: Stack, trained: Path) -> str:
    """The same adapter with the rows of its head exchanged, under another tag."""
    package = stack.data / "corrupted"
    package.mkdir()
    for path in trained.iterdir():
        (package / path.name).write_bytes(path.read_bytes())
    head = AttributionHead.load(package / "attribution_head.safetensors")
    tensors = replace(head.tensors, K=-head.tensors.K.roll(1, dims=0))
    replace(head, tensors=tensors).save(package / "attribution_head.safetensors")
    done = stack.cli("adapter", "register", str(package), "--name", "colours/audited:bad", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["digest"]


def ask(stack: Stack, model: str, text: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request as sent and the answer as received."""
    request = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 16}
    request |= options
    with stack.http() as http:
        return request, http.post("/chat/completions", json=request).raise_for_status().json()


def audit(stack: Stack, receipt: str, folder: Path, kept: Any, *options: str) -> Any:
    stack.receipt(receipt)
    file = folder / "kept.json"
    file.write_text(json.dumps(kept))
    places = ["--base", str(demo_base()), *options]
    return stack.cli("audit", receipt, "--text", str(file), *places, "--json")


def test_one_request_is_scored_again_from_its_receipt(stack: Stack, trained: Path, tmp_path: Path) -> None:
    """Served sums are the head's and as exact as the report says; a changed answer fails; no trace is an error."""
    request, answer = ask(
        stack, "colours/audited:v1", "What colour is the coat of ida?", ignore_eos=True, return_token_ids=True
    )
    done = audit(stack, answer["receipt_id"], tmp_path, {"request": request, "answer": answer})
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["status"], found["scorer"], found["prompt_is_committed"]) == ("ok", "trace", True)
    assert found["served_error_ppm"] < 1_000
    assert found["correlation"]["high_ppm"] >= found["reported"]["low_ppm"]
    served = {row["contributor"]: row["served"] for row in found["contributors"]}
    assert served == {row["contributor"]: row["score"] for row in answer["attribution"]["contributors"]}
    elsewhere = audit(stack, answer["receipt_id"], tmp_path, answer, "--traces", str(tmp_path))
    assert (elsewhere.returncode, "(trace_missing)" in elsewhere.stderr) == (2, True), elsewhere.stderr
    answer["choices"][0]["token_ids"][3] += 1
    changed = audit(stack, answer["receipt_id"], tmp_path, answer)
    assert (changed.returncode, "(text_mismatch)" in changed.stderr) == (1, True), changed.stderr


def test_the_text_alone_proves_the_tokens(stack: Stack, trained: Path, tmp_path: Path) -> None:
    """What was asked and answered, as text: the commitment holds; with another question it does not."""
    request, answer = ask(stack, "colours/audited:v1", "What colour is the boat of ivo?")
    kept = {"request": request, "answer": answer}
    done = audit(stack, answer["receipt_id"], tmp_path, kept)
    assert json.loads(done.stdout)["prompt_is_committed"], done.stderr
    request["messages"][0]["content"] = "What colour is the boat of ida?"
    changed = audit(stack, answer["receipt_id"], tmp_path, kept)
    assert (changed.returncode, "(text_mismatch)" in changed.stderr) == (1, True), changed.stderr


def test_sampled_requests_are_audited_beside_serving_and_a_corrupted_head_raises_the_alarm(
    stack: Stack, trained: Path, corrupted: str
) -> None:
    """The faithful window stands without alarm; the corrupted one drifts: a metric, and an entry of the log."""
    good = stack.cli("adapter", "show", "colours/audited:v1", "--json")
    adapters = {"v1": json.loads(good.stdout)["leads_to"]["digest"], "bad": corrupted}
    for tag in adapters:
        for name in COLOURS:
            for thing in THINGS:
                for phrase in PHRASES[2:]:  # what the report was measured on
                    question = f"{phrase}What colour is the {thing} of {name}?"
                    ask(stack, f"colours/audited:{tag}", question, max_tokens=FIT.max_new_tokens)
    shown = {one["adapter"]: one for one in audited(stack, set(adapters.values()))["adapters"]}
    faithful, drifted = shown[adapters["v1"]], shown[adapters["bad"]]
    assert (faithful["alarm"], faithful["scorer"]) == (None, "trace")
    assert faithful["correlation"]["high_ppm"] >= faithful["reported"]["low_ppm"]
    assert drifted["alarm"]["causes"] == ["drift"]
    assert drifted["correlation"]["high_ppm"] < drifted["reported"]["low_ppm"]
    with stack.http(stack.operator) as http:
        text = http.get(f"{stack.url.removesuffix('/v1')}/metrics").text
        assert f'openledger_audit_alarm{{adapter="{adapters["bad"]}"}} 1.0' in text
        assert f'openledger_audit_alarm{{adapter="{adapters["v1"]}"}} 0.0' in text
    assert stack.cli("audit", "summary").returncode == 1
    url = f"{stack.url.removesuffix('/v1')}/log/entries"
    entries = httpx.get(url, params={"type": "audit_alarm"}, timeout=30).raise_for_status().json()["data"]
    assert [entry["document"]["adapter"] for entry in entries] == [adapters["bad"]]


def audited(stack: Stack, adapters: set[str]) -> dict[str, Any]:
    """The summary, once no sample waits and every adapter has a window."""
    deadline = time.monotonic() + AUDIT_SECONDS
    while True:
        with stack.http() as http:
            shown = http.get("/audits/summary").raise_for_status().json()
        windows = {one["adapter"]: one["window"] for one in shown["adapters"]}
        if not shown["waiting"] and all(windows.get(adapter, 0) >= LEAST_REQUESTS for adapter in adapters):
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.5)


def test_a_client_that_opted_out_is_never_sampled(stack: Stack, trained: Path) -> None:
    """Its request is served and metered, and neither waits nor has a result."""
    key = stack.account("private")
    assert stack.cli("audit", "opt-out", key=key).returncode == 0
    with stack.http(key) as http:
        body = {"model": "colours/audited:v1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        answer = http.post("/chat/completions", json=body).raise_for_status().json()
    stack.receipt(answer["receipt_id"])
    shown = audited(stack, set())
    with stack.http(stack.operator) as http:
        results = http.get("/audits", params={"limit": 1000}).raise_for_status().json()["data"]
    assert (shown["waiting"], shown["enabled"]) == (0, True)
    assert answer["receipt_id"] not in {result["request_id"] for result in results}
