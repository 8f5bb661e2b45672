"""The servers that are compared, as processes of their own: `openledger serve` and bare vLLM."""

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from loadtest.bench.settings import EAGER, KV_CACHE_GIB
from loadtest.errors import Unreachable

ROOT = Path(__file__).parents[2]
START_SECONDS = 400.0
STOP_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Server:
    """A running server; `url` ends with /v1. `options` are the engine's, as it was given them."""

    name: str
    url: str
    process: subprocess.Popen
    data: Path
    options: tuple[str, ...]
    start_seconds: float

    def cpu_seconds(self) -> float:
        """CPU time so far of the whole process tree."""
        total = 0.0
        for one in (root := psutil.Process(self.process.pid), *root.children(recursive=True)):
            if one.is_running():
                total += sum(one.cpu_times()[:2])
        return total


@contextmanager
def gateway(base: Path, data: Path, options: tuple[str, ...]) -> Iterator[Server]:
    """A whole stack on an empty data directory, without demo. Raises Unreachable when it does not come up."""
    port = free_port()
    command = ["-m", "gateway.cli.main", "serve", "--no-demo", "--model", str(base), "--data", str(data)]
    command += ["--port", str(port), "--engine-args", shlex.join(options)]
    ready = data / "demo.env"
    with _running("gateway", command, data, port, options, lambda: ready.exists(), os.environ.copy()) as server:
        yield server


@contextmanager
def bare(base: Path, name: str, data: Path, options: tuple[str, ...], compiled: bool = False) -> Iterator[Server]:
    """vLLM's own server on the same model with the same options, and none of our plugin's environment."""
    port = free_port()
    if compiled:
        options = tuple(option for option in options if option != EAGER)
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(base), "--served-model-name", name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enable-lora", "--enable-prompt-tokens-details"]
    command += ["--disable-uvicorn-access-log", *options]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENLEDGER_")}
    environment |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_KVCACHE_SPACE": environment.get("VLLM_CPU_KVCACHE_SPACE", KV_CACHE_GIB),
        "HF_HUB_OFFLINE": "1",
    }
    healthy = f"http://127.0.0.1:{port}/health"

    def ready() -> bool:
        try:
            return httpx.get(healthy, timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    with _running("bare", command, data, port, options, ready, environment) as server:
        yield server


@contextmanager
def _running(
    name: str,
    command: list[str],
    data: Path,
    port: int,
    options: tuple[str, ...],
    ready: Callable[[], bool],
    environment: dict[str, str],
) -> Iterator[Server]:
    data.mkdir(parents=True, exist_ok=True)
    began, log = time.monotonic(), data.parent / f"{data.name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=out,
            stderr=out,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        while not ready():
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise Unreachable(
                    f"{name} does not start; the end of {log}:\n{log.read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.2)
        seconds = time.monotonic() - began
        yield Server(name, f"http://127.0.0.1:{port}/v1", process, data, options, seconds)
    finally:
        _stop(process)


def run_once(arguments: list[str]) -> None:
    """A preparation: `python <arguments>`. Raises Unreachable when it fails."""
    if subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode:
        raise Unreachable(f"python {shlex.join(arguments)} failed")


def _stop(process: subprocess.Popen) -> None:
    """SIGTERM to the leader, who ends its own; what is left of its group after a minute is killed."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
