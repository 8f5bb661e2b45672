"""A whole running stack for tests: `openledger serve` as a process, on a free port and a data directory of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI

ROOT = Path(__file__).parents[2]
START_SECONDS = 300.0
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Stack:
    """A stack that is up. `client` and `operator` are keys; processes are found by their command."""

    data: Path
    url: str  # ends with /v1
    model: str
    client: str
    operator: str
    process: subprocess.Popen

    def sdk(self, key: str | None = None, **options: Any) -> OpenAI:
        """The openai SDK pointed here, without retries unless asked for."""
        return OpenAI(base_url=self.url, api_key=key or self.client, **{"max_retries": 0, **options})

    def http(self, key: str | None = None) -> httpx.Client:
        """An HTTP client with a key; paths start after /v1."""
        headers = {"authorization": f"Bearer {key or self.client}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)

    def cli(self, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        """`openledger <arguments>` against this stack."""
        environment = {
            **os.environ,
            "OPENLEDGER_URL": self.url,
            "OPENLEDGER_DATA": str(self.data),
            "OPENLEDGER_API_KEY": key or self.operator,
        }
        command = [sys.executable, "-m", "gateway.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)

    def check(self) -> dict:
        """The operator's check."""
        with self.http(self.operator) as http:
            return http.get("/admin/check").raise_for_status().json()

    def account(self, name: str, credit: str | None = "5") -> str:
        """A new member account with credit; returns its key."""
        with self.http(self.operator) as http:
            http.post("/accounts", json={"name": name}).raise_for_status()
            if credit:
                http.post("/credit", json={"account": name, "amount": credit}).raise_for_status()
            return http.post(f"/accounts/{name}/keys", json={}).raise_for_status().json()["secret"]

    def receipt(self, request_id: str, seconds: float = 20) -> dict:
        """A receipt, once it is settled and logged."""
        with self.http(self.operator) as http:
            return eventually(lambda: http.get(f"/receipts/{request_id}").raise_for_status().json(), seconds)

    def pid(self, command: str) -> int:
        """The direct child of the supervisor whose command line holds `command`."""
        for child in psutil.Process(self.process.pid).children():
            if command in " ".join(child.cmdline()):
                return child.pid
        raise LookupError(command)

    def kill(self, command: str) -> None:
        """kill -9 of one process of the stack."""
        os.kill(self.pid(command), signal.SIGKILL)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Until requests are served again."""
        root = self.url.removesuffix("/v1")
        eventually(lambda: httpx.get(f"{root}/healthz", timeout=10).raise_for_status(), seconds)


GATEWAY, ENGINE, SETTLER = "gateway.app:create_app", "gateway.engine.launcher", "metering.settler"


@contextmanager
def running_stack(
    data: Path, base: Path, *, arguments: tuple[str, ...] = ("--no-demo",), environment: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Serves `base` from `data` until the block ends; then nothing is left running."""
    port = free_port()
    command = [sys.executable, "-m", "gateway.cli.main", "serve", "--data", str(data), "--port", str(port)]
    command += ["--model", str(base), *arguments]
    log = data.parent / f"{data.name}.serve.log"
    (data / "demo.env").unlink(missing_ok=True)  # an earlier start's says nothing of this one
    with log.open("ab") as out:
        settings = {**os.environ, "OPENLEDGER_RECOVERY_PERIOD_SECONDS": "1", **(environment or {})}
        process = subprocess.Popen(command, stdout=out, stderr=out, env=settings, cwd=ROOT)
    try:
        wait_for_demo(data / "demo.env", process, log)
        yield describe(data, process)
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(STOP_SECONDS)
        left = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"left running: {left}"


def describe(data: Path, process: subprocess.Popen) -> Stack:
    """The stack that wrote demo.env."""
    lines = (data / "demo.env").read_text().splitlines()
    known = dict(line.split("=", 1) for line in lines)
    return Stack(
        data=data,
        url=known["OPENAI_BASE_URL"],
        model=known["OPENLEDGER_MODEL"],
        client=known["OPENAI_API_KEY"],
        operator=(data / "operator.key").read_text().strip(),
        process=process,
    )


def wait_for_demo(ready: Path, process: subprocess.Popen, log: Path) -> None:
    """Until demo.env is written. Fails with the log when the process ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        running = process.poll() is None and time.monotonic() < deadline
        assert running, log.read_text()[-4000:]
        time.sleep(0.2)


def eventually(what, seconds: float):
    """The value of `what()`, tried again while it raises httpx errors."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return what()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def demo_base() -> Path:
    """The demo base model, prepared once into .cache/base (about 30 s)."""
    directory = ROOT / ".cache" / "base"
    if not (directory / "base.json").exists():
        subprocess.run([sys.executable, "-m", "adapters.demo.base", "--out", str(directory)], check=True, cwd=ROOT)
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
