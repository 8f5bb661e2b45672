"""The settler and forwarder processes refuse what cannot work by name, in one line, with a status of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest


def refused(tmp_path, module: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", f"metering.{module}", "--data", str(tmp_path / "data")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("module", ["settler", "forwarder"])
def test_a_bus_out_of_reach_is_named_without_its_password(tmp_path, module):
    """Nobody listens: status 4 and the address, not the credentials."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        status, said = refused(tmp_path, module, OPENLEDGER_EVENTS=f"nats://me:secret@127.0.0.1:{port}")
    assert status == 4
    assert f"cannot reach nats://127.0.0.1:{port}" in said
    assert "secret" not in said


def test_a_server_that_is_not_nats_is_named(tmp_path):
    """Something else listens there and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        status, said = refused(tmp_path, "forwarder", OPENLEDGER_EVENTS=f"nats://127.0.0.1:{silent.getsockname()[1]}")
    assert (status, "cannot reach" in said) == (4, True)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"OPENLEDGER_EVENTS": "amqp://host"}, "events_url"),
        ({"OPENLEDGER_LEDGER": "mongodb://host"}, "ledger_url"),
        ({"OPENLEDGER_EVENTS_STREAM": "no dots."}, "events_stream"),
        ({"OPENLEDGER_REDELIVER_SECONDS": "soon"}, "soon"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(tmp_path, environment, name):
    """Status 2 and the setting, before anything is opened."""
    status, said = refused(tmp_path, "settler", **environment)
    assert (status, name in said) == (2, True)
    assert not (tmp_path / "data").exists()


def test_a_forwarder_needs_a_bus(tmp_path):
    """Without OPENLEDGER_EVENTS there is nothing to forward to."""
    status, said = refused(tmp_path, "forwarder", OPENLEDGER_EVENTS="")
    assert (status, "OPENLEDGER_EVENTS" in said) == (2, True)


def test_a_ledger_out_of_reach_is_named(tmp_path):
    """Status 4, whatever the driver says in one line."""
    status, said = refused(tmp_path, "settler", OPENLEDGER_LEDGER="postgresql://127.0.0.1:1/none")
    assert (status, "connection" in said) == (4, True)
