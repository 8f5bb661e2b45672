"""The log's duties by real processes: a settler at work, a key rotated by command, a witness on its port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metering.check import run_checks
from metering.errors import UsageUnknown
from metering.receipt import build_receipt, verify_receipt
from metering.witness_policy import parse_policy

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "gateway.cli.main", "log"]


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen]:
    """A process that is asked to end afterwards, and does."""
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(30)


def receipt(market, request_id: str, witnessed: bool = False) -> bytes:
    """Of a request, once the settler has it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return build_receipt(market.ledger, request_id, witnessed=witnessed)
        except UsageUnknown:
            assert time.monotonic() < deadline, "the settler does not settle"
            time.sleep(0.02)


def log(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return done


def test_a_key_is_rotated_and_a_head_witnessed_while_the_settler_runs(market, tmp_path) -> None:
    """Requests before, between and after two rotations; all receipts hold, one with a witness; the check is clean."""
    data, keys = str(market.config.data_dir), market.config.log_public_key_path
    receipts = []
    with process(sys.executable, "-m", "metering.settler", "--data", data):
        for _ in range(2):
            [event] = market.serve(1)
            receipts.append(receipt(market, event.id))
            log("rotate-key", "--data", data)
        [event] = market.serve(1)
        receipts.append(receipt(market, event.id))
        listen = ("witness", str(tmp_path / "w"), "--name", "witness.example/w", "--log-key", str(keys), "--port", "0")
        with process(*COMMAND, *listen) as witness:
            assert witness.stdout is not None
            line = witness.stdout.readline()
            (tmp_path / "policy").write_text(f"{line}quorum witness.example/w\n")
            log("cosign", "--policy", str(tmp_path / "policy"), "--data", data)
    list_of_keys = keys.read_text()
    assert len(list_of_keys.splitlines()) == 3
    sizes = [verify_receipt(data, list_of_keys).tree_size for data in receipts]
    assert sizes == sorted(set(sizes))
    witnessed = receipt(market, event.id, witnessed=True)
    policy = parse_policy((tmp_path / "policy").read_text())
    assert verify_receipt(witnessed, list_of_keys, policy).witnesses == ("witness.example/w",)
    assert run_checks(market.config, market.ledger).findings == ()
