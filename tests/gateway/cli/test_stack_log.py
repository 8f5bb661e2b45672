"""The log's duties on a running stack: witnessed receipts, a copy that verifies, and a key changed under way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gateway.stack import ROOT, Stack

pytestmark = pytest.mark.engine

PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@contextmanager
def witness(stack: Stack, directory: Path) -> Iterator[str]:
    """A witness process of the stack's log; its line of a policy."""
    command = [
        sys.executable,
        "-m",
        "gateway.cli.main",
        "log",
        "witness",
        str(directory),
        "--name",
        "witness.example/w",
    ]
    command += ["--name", "witness.example/w", "--log-key", str(stack.data / "log.pub"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)


def ask(stack: Stack) -> str:
    """A new answer, settled; its receipt's id."""
    answer = stack.sdk().chat.completions.create(model=stack.model, messages=PARIS, max_tokens=4)
    stack.receipt(answer.id)
    return answer.id


def test_witnesses_copies_and_a_new_key(stack: Stack, tmp_path: Path) -> None:
    """A receipt that a witness vouches for, a copy that holds it, and a key rotated while the settler runs."""
    key, copy, policy = str(stack.data / "log.pub"), tmp_path / "copy", tmp_path / "policy"
    first = ask(stack)
    with witness(stack, tmp_path / "w") as line:
        policy.write_text(f"{line}\nquorum witness.example/w\n")
        assert stack.cli("log", "cosign", "--policy", str(policy)).returncode == 0
    witnessed = tmp_path / "witnessed.json"
    stack.cli("receipt", first, "--witnessed", "-o", str(witnessed), key=stack.client)
    shown = stack.cli("verify", str(witnessed), "--policy", str(policy), "--log-key", key, "--json")
    assert json.loads(shown.stdout)["witnesses"] == ["witness.example/w"], shown.stdout
    assert stack.cli("log", "fetch", str(copy)).returncode == 0
    rotated = stack.cli("log", "rotate-key", "--json")
    assert rotated.returncode == 0, rotated.stderr
    later = tmp_path / "later.json"
    assert stack.cli("receipt", ask(stack), "-o", str(later), key=stack.client).returncode == 0
    (tmp_path / "saved").write_bytes((copy / "checkpoint").read_bytes())
    fetched = stack.cli("log", "fetch", str(copy))
    assert fetched.returncode == 0, fetched.stderr
    both = stack.cli("verify", str(later), str(copy), "--saved", str(tmp_path / "saved"), "--json")
    assert json.loads(both.stdout)["verified"], both.stdout
    assert json.loads(both.stdout)["results"][0]["tree_size"] > json.loads(rotated.stdout)["until"]
    assert json.loads(both.stdout)["results"][1]["entries"]["log_key"] == 1
    assert stack.check()["clean"]
