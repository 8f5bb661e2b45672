"""The audit process dismisses what it cannot audit, each request with the reason, and says when it can do nothing."""

import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.base import BaseModel
from adapters.compose import compose
from adapters.layout import PackageLimits
from adapters.package import inspect
from adapters.record import parse_record
from gateway.audit import process as process_module
from gateway.audit.process import AuditProcess
from gateway.audit.store import AuditStore, Sample
from tests.gateway.packages import PackageWriter

VERSION = "sha256:" + "5" * 64


def audit(store: AuditStore, data: Path, base: Path) -> None:
    AuditProcess(data, base, data / "trained", store, threading.Event()).tick()


def sample(adapter: str) -> Sample:
    return Sample(f"req_{adapter[7:9]}", adapter, "base", [[1]], [[2]], {})


def test_an_adapter_that_was_trained_elsewhere_is_dismissed_by_name(tiny_base: Path, tmp_path: Path) -> None:
    """No package, no record, no trace: a result with that code, no tokens left, and no batch process."""
    data, names = tmp_path / "data", ["sha256:" + letter * 64 for letter in "abc"]
    writer = PackageWriter(BaseModel.from_directory(tiny_base))
    for name in names[1:]:
        package = writer.write(data / "adapters" / name.removeprefix("sha256:"), 1)
        writer.write_head(package, "facts", VERSION, {"ann": 1})
    (data / "adapters" / names[1].removeprefix("sha256:") / "training_record.json").unlink()
    store = AuditStore(data / "gateway")
    for name in names:
        store.offer(sample(name), "alice")
    audit(store, data, tiny_base)
    found = {result.adapter: (result.status, result.detail) for result in store.results()}
    assert [found[name][0] for name in names] == ["package_missing", "trace_missing", "trace_missing"]
    assert str(data / "trained") in found[names[2]][1]
    assert (store.waiting(), store.reason) == (0, "")
    store.close()


def test_a_composed_adapter_needs_the_traces_of_its_parts(tiny_base: Path, tmp_path: Path) -> None:
    """The part without a trace is named; with all of them nothing is refused."""
    base, data = BaseModel.from_directory(tiny_base), tmp_path / "data"
    writer, parts = PackageWriter(base), []
    for seed in (1, 2):
        package = writer.write(data / "adapters" / "building", seed)
        writer.write_head(package, "facts", VERSION, {"ann": 1}, seed)
        parts.append(package.rename(data / "adapters" / inspect(package, base, PackageLimits()).digest[7:]))
    composed = compose([(part, 500_000) for part in parts], base, data / "adapters" / "composed")
    composed.directory.rename(data / "adapters" / composed.digest[7:])
    store = AuditStore(data / "gateway")
    process = AuditProcess(data, tiny_base, data / "trained", store, threading.Event())
    for part in sorted(parts):
        assert process._why_not(composed.digest).startswith(
            f"trace_missing: part sha256:{part.name}: no training trace"
        )
        weights = parse_record((part / "training_record.json").read_bytes()).weights
        work = data / "trained" / f"{part.name}.work"
        work.mkdir(parents=True)
        save_file({"trace": np.zeros((1, 1), "f4")}, work / "trace.safetensors", {"run": weights})
    assert process._why_not(composed.digest) == ""
    store.close()


def test_without_torch_nothing_is_audited_and_the_reason_is_shown(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples do not pile up where they can never be audited."""
    monkeypatch.setattr(process_module, "find_spec", lambda name: None if name == "torch" else object())
    store = AuditStore(tmp_path / "gateway")
    store.offer(sample("sha256:" + "a" * 64), "alice")
    audit(store, tmp_path, tiny_base)
    (result,) = store.results()
    assert (result.status, result.detail) == ("not_installed", "torch")
    assert (store.waiting(), store.reason) == (0, "not installed: torch")
    store.close()


def test_a_batch_that_dies_costs_its_first_sample_and_no_more(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that kills the batch process is put aside, so that the next one gets its turn."""
    monkeypatch.setattr(AuditProcess, "_why_not", lambda *_: "")
    monkeypatch.setattr(process_module.sys, "executable", "/bin/false")
    store = AuditStore(tmp_path / "gateway")
    for letter in "ab":
        store.offer(sample("sha256:" + letter * 64), "alice")
    audit(store, tmp_path, tiny_base)
    (result,) = store.results()
    assert (result.adapter[7], result.status, store.waiting()) == ("a", "audit_failed", 1)
    store.close()
