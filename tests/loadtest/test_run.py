"""The load test as a process, against the real stack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.stack import ROOT, Stack, demo_base


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m loadtest.run`; in this process locust would patch the standard library."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "OPENLEDGER_"))}
    command = [sys.executable, "-m", "loadtest.run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240, check=False)


@pytest.mark.engine
def test_ten_seconds_of_mixed_load_reconcile(stack: Stack, tmp_path: Path) -> None:
    """Whole answers, streams, leavers and slow readers, adapters registered meanwhile: every token counted once."""
    out = tmp_path / "report.json"
    done = load(
        *("--data", str(stack.data), "--duration", "10", "--users", "4", "--max-tokens", "16", "--pause", "0.05"),
        *("--models", stack.model, "--register-every", "3", "--base", str(demo_base()), "--out", str(out)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    proof = report["reconciliation"]
    assert proof["clean"]
    assert len(proof["compared"]) == 4
    assert proof["requests"]["complete"] > 0
    assert proof["tokens_seen"]["complete"] == proof["tokens_billed"]["complete"] > 0
    assert proof["tokens_seen"].get("left", 0) <= proof["tokens_billed"].get("left", 0)
    assert report["registered"] >= 1
    assert report["rates"]["error_rate"] == 0
    assert report["latencies_ms"]["ttft"]["p95"] > 0


def test_a_run_without_server_ends_with_its_exit_code() -> None:
    """4: nobody there. 2: an objective that nobody knows."""
    gone = load("--url", "http://127.0.0.1:1", "--key", "none")
    assert gone.returncode == 4
    assert "no answer" in gone.stdout
    assert load("--url", "http://127.0.0.1:1", "--key", "none", "--slo", "nonsense=1").returncode == 2
