"""`openledger serve` refuses what cannot work, by name."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.errors import ConfigurationError
from gateway.supervisor import only_server_of, refuse_busy_port
from tests.gateway.stack import ENGINE, GATEWAY, ROOT, SETTLER, Stack, demo_base, running_stack


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli.main", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    """The message names the process that holds it; the lock ends with its process."""
    with only_server_of(tmp_path):
        refused = serve("--data", str(tmp_path), "--port", "1")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"is served by process {os.getpid()} already" in refused.stderr
    with (tmp_path / "serve.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_busy_port_is_refused_by_name(tmp_path: Path) -> None:
    """Before anything is started or downloaded."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}"):
            refuse_busy_port("127.0.0.1", port)
        refused = serve("--data", str(tmp_path / "d"), "--port", str(port))
    assert refused.returncode == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in refused.stderr


def test_a_model_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    """One line, exit code 1, nothing left running."""
    refused = serve("--data", str(tmp_path), "--port", str(free()), "--model", "no/such-model-anywhere")
    assert refused.returncode == 1
    assert "neither a directory nor a hub model" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--settlers", "3"], "3 settlers need --events nats://... and --ledger postgresql://..."),
        (["--settlers", "2", "--events", "nats://127.0.0.1:1"], "2 settlers need"),
        (["--settlers", "0"], "settlers"),
        (["--events", "http://127.0.0.1:4222"], "events_url must be empty or nats://host:port"),
        (["--events", "nats://127.0.0.1:1"], "EventsUnavailable: cannot reach nats://127.0.0.1:1"),
        (["--ledger", "sqlite://x"], "ledger_url must be empty or postgresql://"),
        (["--ledger", "postgresql://127.0.0.1:1/x"], "LedgerUnavailable: connection"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bus_or_ledger_that_cannot_work_is_refused_by_name(tmp_path: Path, arguments: list[str], said: str) -> None:
    """Before anything is started; the embedded default asks for neither."""
    refused = serve("--data", str(tmp_path), "--port", str(free()), *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in " ".join(refused.stderr.split())


def test_a_ledger_on_a_server_is_not_replaced_by_an_empty_file(tmp_path: Path) -> None:
    """The data directory remembers; a start without --ledger says so."""
    (tmp_path / "ledger.server").touch()
    refused = serve("--data", str(tmp_path), "--port", str(free()))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "set OPENLEDGER_LEDGER" in " ".join(refused.stderr.split())
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.engine
def test_ctrl_c_stops_everything_and_a_second_start_reuses_it(tmp_path: Path) -> None:
    """The account's key, the ledger and the log go on; `running_stack` fails when a process is left."""
    with running_stack(tmp_path / "data", demo_base()) as first:
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(60) == 0
    with running_stack(tmp_path / "data", demo_base()) as second:
        assert second.client == first.client
        assert second.check()["clean"]
        log = (tmp_path / "data.serve.log").read_text()
        assert "reused         demo client" in log


@pytest.mark.engine
def test_a_killed_supervisor_takes_everything_along(tmp_path: Path) -> None:
    """kill -9 of `openledger serve` leaves neither the engine nor its workers."""
    import psutil

    with running_stack(tmp_path / "data", demo_base()) as stack:
        family = psutil.Process(stack.process.pid).children(recursive=True)
        assert {stack.pid(command) for command in (ENGINE, GATEWAY, SETTLER)} < {one.pid for one in family}
        stack.process.kill()
        stack.process.wait()
        deadline = time.monotonic() + 30
        while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.engine
def test_json_is_one_document(stack: Stack) -> None:
    """Every command's --json output parses, and has nothing beside it."""
    for command in (["check"], ["usage"], ["invoice"], ["account", "list"], ["datanet", "list"], ["adapter", "list"]):
        done = stack.cli(*command, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        assert done.stderr == ""


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
