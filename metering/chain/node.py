"""A local anvil node and the contract compiler, from npm: for tests, benchmarks and trying things out.

Versions are pinned by contracts/package-lock.json; everything is installed under one folder, `.cache/chain`.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx

from metering.chain.errors import ChainError

CONTRACTS = Path(__file__).parent / "contracts"
CACHE = Path(__file__).parents[2] / ".cache" / "chain"
START_SECONDS = 20.0
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class ToolsMissing(ChainError):
    """npm is not installed, or could not install the pinned packages."""


def install_tools(cache: Path = CACHE) -> Path:
    """`npm ci` once for each state of the lock file; the node_modules folder. ToolsMissing when that fails."""
    cache.mkdir(parents=True, exist_ok=True)
    lock_text = (CONTRACTS / "package-lock.json").read_text()
    done = cache / "installed.json"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != lock_text:
            if shutil.which("npm") is None:
                raise ToolsMissing("npm is not installed; it brings the compiler and the test node")
            for name in ("package.json", "package-lock.json"):
                shutil.copy(CONTRACTS / name, cache / name)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            ran = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise ToolsMissing(f"npm ci failed: {ran.stderr[-1000:]}")
            done.write_text(lock_text)
    return cache / "node_modules"


def compile_contracts(modules: Path, out: Path) -> None:
    """Compile contracts/src into artifacts under `out`; ChainError with the compiler's words when it complains."""
    ran = subprocess.run(
        ["node", str(CONTRACTS / "compile.mjs"), str(modules), str(out)], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise ChainError(f"contracts do not compile: {ran.stderr}")


class AnvilNode:
    """A development chain on a free port of this machine, with accounts made from a public mnemonic.

    With a `state` file it can be stopped and started again as the same chain.
    """

    def __init__(self, modules: Path, state: Path | None = None, automine: bool = True) -> None:
        package = f"anvil-{platform.system().lower()}-{MACHINES.get(platform.machine().lower(), 'unknown')}"
        bundled = modules / "@foundry-rs" / package / "bin" / "anvil"
        binary = str(bundled) if bundled.exists() else shutil.which("anvil")
        if binary is None:
            raise ToolsMissing(f"npm has no {package}; install anvil (getfoundry.sh) yourself")
        self._binary = binary
        self._state = state
        self._automine = automine
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [self._binary, "--port", str(self.port), "--silent", "--order", "fifo"]
        command += ["--state", str(self._state)] if self._state else []
        command += [] if self._automine else ["--no-mining"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.request("eth_chainId")
                return
            except httpx.TransportError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise ToolsMissing("anvil does not start") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to end, which writes its state."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def request(self, method: str, *parameters: object) -> object:
        """A JSON-RPC request, anvil's own included (anvil_mine, anvil_reorg, ...)."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        answer = httpx.post(self.url, json=body, timeout=10.0).json()
        if "error" in answer:
            raise ChainError(f"{method}: {answer['error']}")
        return answer["result"]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
