"""From a queued sample to a result, an alarm and an entry of the log; and the same request by `openledger audit`."""

import json
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.base import BaseModel
from adapters.compose import compose
from adapters.digests import digest
from adapters.package import manifest_bytes
from adapters.training.audit import AuditModel
from adapters.training.config import HeadConfig
from adapters.training.fit import fit_head
from adapters.training.head import AttributionHead
from adapters.training.observe import Readout, observe
from adapters.training.ridge import Bilinear, fit_bilinear
from adapters.training.tokens import TokenExample
from adapters.training.train import train_adapter
from gateway.audit.alarm import LEAST_REQUESTS, window_of
from gateway.audit.correlation import Correlation
from gateway.audit.process import AuditProcess
from gateway.audit.store import AuditStore, Result, Sample
from gateway.cli.main import run as run_command
from metering.canonical import canonical_bytes
from metering.config import MeteringConfig
from metering.event import UsageEvent, commit_tokens, encode_event
from metering.ledger import Ledger
from tests.adapters.training.conftest import base_dir, export_dir  # noqa: F401
from tests.adapters.training.tiny import tiny_config

SALT, DIGEST = "5a" * 32, "sha256:" + "d" * 64
PROMPTS = [[4, 6, 7, 8, 9 + index] for index in range(LEAST_REQUESTS)]


@dataclass(frozen=True)
class Machine:
    """A data directory with a really trained adapter, its trace, and a copy of it whose head is turned around."""

    data: Path
    base: Path
    good: str
    bad: str
    choices: list[list[int]]

    def served(self, adapter: str) -> list[dict[str, int]]:
        """What an honest engine serves for each request: the sums of the installed head's scores."""
        package = self.data / "adapters" / adapter.removeprefix("sha256:")
        model = AuditModel.load(package, self.base, adapter=adapter, works=self.data / "trained")
        found = model.rescore(PROMPTS, self.choices)
        sums = torch.zeros(len(PROMPTS), len(found.contributors), dtype=torch.float64)
        sums.index_add_(0, found.choice, found.head.double() * 1e6)
        return [dict(zip(found.contributors, row, strict=True)) for row in sums.round().long().tolist()]

    def samples(self, adapter: str) -> list[Sample]:
        requests = zip(PROMPTS, self.choices, self.served(adapter), strict=True)
        return [
            Sample(f"req_{adapter[7:19]}{number}", adapter, DIGEST, [prompt], [ids], scores)
            for number, (prompt, ids, scores) in enumerate(requests)
        ]


@pytest.fixture(scope="module")
def machine(base_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:  # noqa: F811
    data = tmp_path_factory.mktemp("audits") / "data"
    out = data / "trained" / "colours"
    train_adapter(export_dir, base_dir, out, seed=3, config=tiny_config(max_epochs=2), trainer="tess", host="hal")
    fit_head(out, export_dir, base_dir, config=HeadConfig(k=16, report_examples=2, max_new_tokens=3, threads=1))
    draw = random.Random(1)
    choices = [[draw.randrange(4, 30) for _ in range(24)] for _ in PROMPTS]
    report = json.loads((out / "fidelity.json").read_bytes())
    report["pearson_with_trace"] = {"ppm": 990_000, "low_ppm": 950_000, "high_ppm": 1_000_000, "count": 192}
    head = reproducing(out, base_dir, choices)
    names = []
    for sign in (1, -1):
        content = canonical_bytes(report)
        package = data / "building"
        package.mkdir(parents=True)
        for path in out.iterdir():
            (package / path.name).write_bytes(path.read_bytes())
        (package / "fidelity.json").write_bytes(content)
        tensors = replace(head.tensors, K=sign * head.tensors.K)
        replace(head, tensors=tensors, fidelity=digest(content)).save(package / "attribution_head.safetensors")
        names.append(digest(manifest_bytes(package, BaseModel.from_directory(base_dir).digest)))
        (data / "adapters").mkdir(exist_ok=True)
        package.rename(data / "adapters" / names[-1].removeprefix("sha256:"))
    return Machine(data, base_dir, *names, choices)


def reproducing(package: Path, base: Path, choices: list[list[int]]) -> AttributionHead:
    """A head that says of these requests what the trace says: with 14 taps of 16 x 4 features it can."""
    name = digest(manifest_bytes(package, BaseModel.from_directory(base).digest))
    model = AuditModel.load(package, base, adapter=name, works=package.parent)
    requests = zip(PROMPTS, choices, strict=True)
    examples = [TokenExample(0, (*p, *ids), (False,) * len(p) + (True,) * len(ids)) for p, ids in requests]
    seen = observe(model.model, Readout(model.model.causal_lm), examples, [model.scorer])
    names = list(model.model.modules)
    h = seen.h[:, [names.index(tap) for tap in model.head.taps]]
    P = model.head.tensors.P
    return replace(model.head, tensors=Bilinear(fit_bilinear(seen.u @ P, h, seen.scores["trace"], 1e-6), P))


def composition(machine: Machine) -> str:
    """The digest of both adapters composed and installed."""
    folder = machine.data / "adapters"
    parts = [(folder / name.removeprefix("sha256:"), 500_000) for name in (machine.good, machine.bad)]
    made = compose(parts, BaseModel.from_directory(machine.base), folder / "composed")
    made.directory.rename(folder / made.digest.removeprefix("sha256:"))
    return made.digest


def test_a_faithful_head_stands_and_a_corrupted_one_raises_an_alarm(machine: Machine) -> None:
    """Both are audited in a process of their own; no tokens stay; the drift of one is an entry waiting for the log.

    Their composition is scored from their traces: the served sums are right, and the lowest report of the two judges.
    """
    store, composed = AuditStore(machine.data / "gateway"), composition(machine)
    store.offer(machine.samples(composed)[0], "alice")
    for adapter in (machine.good, machine.bad):
        for sample in machine.samples(adapter):
            store.offer(sample, "alice")
    process = AuditProcess(machine.data, machine.base, machine.data / "trained", store, threading.Event())
    process.tick()
    assert (store.waiting(), store.reason) == (0, "")
    good, bad = (window_of(store, adapter) for adapter in (machine.good, machine.bad))
    assert [result.status for result in good] == ["ok"] * LEAST_REQUESTS
    assert {result.tokens for result in (*good, *bad)} == {24}
    assert max(result.served_error_ppm or 0 for result in (*good, *bad)) < 1_000
    assert all(result.status in ("ok", "drift") for result in bad)
    (result,) = (result for result in store.results() if result.adapter == composed)
    assert (result.scorer, result.tokens, result.reported) == ("trace", 24, min_report(good[0], bad[0]))
    assert result.correlation is not None
    assert result.reported is not None
    below = Correlation.of(result.correlation).is_below(Correlation.of(result.reported))
    assert result.status == ("drift" if below else "ok")
    assert (result.served_error_ppm or 0) < 1_000
    assert store.open_alarm(machine.good) is None
    alarm = store.open_alarm(machine.bad)
    assert alarm is not None
    assert (alarm["causes"], alarm["requests"]) == (["drift"], LEAST_REQUESTS)
    ledger = Ledger.open(MeteringConfig.from_environment(machine.data, os.environ))
    with ledger.store.read() as connection:
        rows = connection.execute("SELECT body FROM documents WHERE kind = 'audit_alarm'")
    ledger.close()
    assert [json.loads(bytes(row[0])) for row in rows] == [alarm]
    store.close()


def min_report(*results: Result) -> dict[str, int] | None:
    return min((result.reported for result in results), key=lambda report: report["low_ppm"] if report else 0)


def receipt(machine: Machine, adapter: str, folder: Path, **changes: Any) -> list[str]:
    """Arguments of `openledger audit` for request 0: a receipt's file and the kept answer with its token ids."""
    prompts, choices = [PROMPTS[0]], [machine.choices[0]]
    event = UsageEvent(
        id="req_" + "0" * 32, time_unix_us=0, tenant="alice", key_id="k", model="m", endpoint="/v1", base=DIGEST,
        terms=DIGEST, price_book=DIGEST, prompt_tokens=5, cached_tokens=0, completion_tokens=24,
        finish_reasons=("length",), tokens_commitment=commit_tokens(bytes.fromhex(SALT), choices, prompts),
        adapter=adapter, head=DIGEST, scores=changes.pop("scores", None) or machine.served(adapter)[0],
    )  # fmt: skip
    (folder / "receipt.json").write_text(json.dumps({"body": {"event": json.loads(encode_event(event))}}))
    choice = {"index": 0, "token_ids": choices[0], **changes}
    kept = {"receipt_salt": SALT, "prompt_token_ids": prompts[0], "choices": [choice]}
    (folder / "kept.json").write_text(json.dumps(kept))
    return ["audit", str(folder / "receipt.json"), "--text", str(folder / "kept.json"), "--json"]


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`openledger <arguments>` on the machine, in this process: torch is loaded once."""
    monkeypatch.setenv("OPENLEDGER_DATA", str(machine.data))

    def ended(arguments: list[str], *options: str) -> Ended:
        status = run_command([*arguments, "--base", str(machine.base), *options])
        return Ended(status, *capsys.readouterr())

    return ended


def test_the_command_scores_one_request_again(machine: Machine, tmp_path: Path, run: Callable[..., Ended]) -> None:
    """Exit code 0 and equal sums for what the head gives; 1 for a corrupted head and for sums nobody scored."""
    good = run(receipt(machine, machine.good, tmp_path))
    assert good.returncode == 0, good.stderr
    found = json.loads(good.stdout)
    assert (found["status"], found["scorer"], found["prompt_is_committed"]) == ("ok", "trace", True)
    assert all(abs(row["served"] - row["recomputed"]) <= 50 for row in found["contributors"])
    bad = run(receipt(machine, machine.bad, tmp_path))
    assert (bad.returncode, json.loads(bad.stdout)["status"]) == (1, "drift")
    wrong = run(receipt(machine, machine.good, tmp_path, scores={"ann": 10**9}))
    assert (wrong.returncode, json.loads(wrong.stdout)["status"]) == (1, "served_mismatch")


def test_the_command_names_what_is_wrong(machine: Machine, tmp_path: Path, run: Callable[..., Ended]) -> None:
    """A changed text, a missing trace, a missing Datanet, a package that is not here, no text: one line and a code."""
    changed = run(receipt(machine, machine.good, tmp_path, token_ids=machine.choices[1]))
    assert (changed.returncode, "(text_mismatch)" in changed.stderr) == (1, True), changed.stderr
    arguments = receipt(machine, machine.good, tmp_path)
    for options, code in (
        (("--traces", str(tmp_path)), "trace_missing"),
        (("--datanet", str(tmp_path / "none")), "datanet_missing"),
        (("--scorer", "fisher"), "datanet_mismatch"),
        (("--packages", str(tmp_path)), "package_missing"),
    ):
        refused = run(arguments, *options)
        assert (refused.returncode, f"({code})" in refused.stderr) == (2, True), refused.stderr
    without = run([arguments[0], arguments[1], "--json"])
    assert (without.returncode, "(text_missing)" in without.stderr) == (2, True), without.stderr
