"""The whole stack with events on NATS and the ledger on PostgreSQL: same API, same receipts, several settlers."""

import signal
from pathlib import Path

import httpx
import pytest

from gateway.bus_metrics import render_forwarder
from metering.bench.nats_server import NatsServer
from metering.bench.server import postgres
from metering.forwarder_state import ForwarderState
from tests.gateway.stack import SETTLER, Stack, demo_base, eventually, running_stack

FORWARDER = "metering.forwarder"


@pytest.mark.engine
def test_the_stack_serves_through_a_bus_to_two_settlers(tmp_path: Path) -> None:
    """An answer, its receipt, killed forwarder and settler, another answer; the books are clean and Ctrl-C ends all."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    with postgres() as ledger:
        arguments = ("--no-demo", "--events", server.url, "--ledger", ledger, "--settlers", "2")
        with running_stack(tmp_path / "data", demo_base(), arguments=arguments) as stack:
            ask(stack)
            stack.kill(FORWARDER)
            stack.kill(SETTLER)
            ask(stack)
            report = eventually(lambda: settled(stack), 60)
            assert report["clean"], report["findings"]
            assert report["totals"]["metered_requests"] == 2
            assert not (stack.data / "ledger.db").exists()
            metrics = httpx.get(stack.url.removesuffix("/v1") + "/metrics").text
            assert "openledger_forwarder_published 2.0" in metrics
            stack.process.send_signal(signal.SIGINT)
            assert stack.process.wait(60) == 0
    server.kill()


def ask(stack: Stack) -> None:
    answer = stack.sdk().chat.completions.create(
        model=stack.model, messages=[{"role": "user", "content": "Say hi."}], max_tokens=4
    )
    assert stack.receipt(answer.receipt_id, 60)["body"]["event"]["id"] == answer.receipt_id


def settled(stack: Stack) -> dict:
    """The check, once nothing waits."""
    report = stack.check()
    if report["totals"]["unsettled_records"]:
        raise httpx.HTTPError("records wait")
    return report


def test_the_forwarder_tells_metrics_what_it_knows(tmp_path: Path) -> None:
    """Counts, and whether records go through; nothing at all without a forwarder."""
    assert render_forwarder(tmp_path) == b""
    ForwarderState(published=5, failures=2, unsettled=3, failure="cannot reach nats://x").save(tmp_path)
    lines = render_forwarder(tmp_path).decode().splitlines()
    for line in ("published 5.0", "failures 2.0", "unsettled 3.0", "duplicates 0.0", "up 0.0"):
        assert f"openledger_forwarder_{line}" in lines
