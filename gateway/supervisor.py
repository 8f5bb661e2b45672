"""`openledger serve`: one console over engine, gateway and settler (with a bus: forwarder), restarted on a crash."""

import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import httpx

from gateway.child import Child, adopt_orphans
from gateway.config import Settings
from gateway.errors import ConfigurationError
from gateway.metrics_directory import MULTIPROCESS
from gateway.reaper import Reaper

TURN_SECONDS = 0.2
HOPELESS_CRASHES = 3  # in a row before the stack was ever ready
LOG_TAIL_LINES = 15


class StartFailed(Exception):
    """The stack cannot come up; the message says which process and shows the end of its log."""


class Stopped(Exception):
    """SIGINT or SIGTERM arrived."""


@dataclass(frozen=True)
class Plan:
    """What to serve: settings, the prepared base directory and name, and further options of the engine."""

    settings: Settings
    base_directory: Path
    base_name: str
    engine_arguments: tuple[str, ...] = ()


class Supervisor:
    """Starts, tends and stops the children of one data directory. `say` prints one line on the console."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._settings = replace(plan.settings, base=str(plan.base_directory), base_name=plan.base_name)
        self._plan = plan
        self._say = say
        adopt_orphans()
        self._reaper = Reaper()
        self._children = [self._engine(), self._gateway(), *self._forwarders(), *self._settlers()]
        self._background = self._auditors()  # serving waits for none of these, and does without

    def start(self, waiting: Callable[[str], None]) -> float:
        """Starts all and returns the seconds until requests are served; `waiting` is told what is missing, often.

        Raises StartFailed when a process keeps crashing, Stopped on a signal.
        """
        began = time.monotonic()
        for child in (*self._children, *self._background):
            child.start()
        while not self._is_ready():
            self.turn()
            for child in self._children:
                if child.crashes >= HOPELESS_CRASHES:
                    raise StartFailed(f"{child.name} does not start; the end of {child.log}:\n{tail(child.log)}")
            waiting(f"{time.monotonic() - began:.0f} s")
        return time.monotonic() - began

    def turn(self) -> None:
        """One turn of tending: restarts what crashed and says so."""
        for child in (*self._children, *self._background):
            status = child.tend()
            if status is not None:
                self._say(f"{child.name} ended with status {status} and is started again; see {child.log}")
        time.sleep(TURN_SECONDS)

    def stop(self) -> None:
        """Stops the gateway first (it drains), then forwarder and settlers (each passes on what was drained), then the
        engine."""
        engine, *others = self._children
        for child in (*self._background, *others, engine):
            child.stop()
        self._reaper.close()

    def _is_ready(self) -> bool:
        url = f"http://{self._settings.local_host}:{self._settings.port}/healthz"
        try:
            return httpx.get(url, timeout=5).status_code == 200 and all(c.is_running for c in self._children)
        except httpx.HTTPError:
            return False

    def _engine(self) -> Child:
        plan, data = self._plan, self._settings.data
        command = ["-m", "gateway.engine.launcher", "--data", str(data), "--model", str(plan.base_directory)]
        command += ["--name", plan.base_name, "--max-lora-rank", str(self._settings.max_lora_rank)]
        command += plan.engine_arguments
        return self._child("engine", command, data / "engine" / "engine.log", 20)

    def _gateway(self) -> Child:
        settings = self._settings
        command = ["-m", "uvicorn", "--factory", "gateway.app:create_app", "--host", settings.host]
        command += ["--port", str(settings.port), "--workers", str(settings.workers), "--no-access-log"]
        command += ["--log-level", "warning", "--timeout-graceful-shutdown", "10"]
        child = self._child("gateway", command, settings.data / "gateway" / "gateway.log", 30)
        if settings.workers == 1:
            return child
        directory = settings.data / "gateway" / "metrics"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return replace(child, environment={**child.environment, MULTIPROCESS: str(directory)})

    def _forwarders(self) -> list[Child]:
        """The one that publishes this machine's journal, where there is a bus."""
        data = self._settings.data
        command = ["-m", "metering.forwarder", "--data", str(data)]
        return [self._child("forwarder", command, data / "forwarder.log", 20)] if self._settings.events else []

    def _settlers(self) -> list[Child]:
        data, many = self._settings.data, self._settings.settlers > 1
        names = [f"settler-{i + 1}" for i in range(self._settings.settlers)] if many else ["settler"]
        command = ["-m", "metering.settler", "--data", str(data)]
        return [self._child(name, command, data / f"{name}.log", 20) for name in names]

    def _auditors(self) -> list[Child]:
        """The one that scores sampled requests again, where any are sampled."""
        settings = self._settings
        command = ["-m", "gateway.audit.process", "--data", str(settings.data), "--base", settings.base]
        command += ["--works", str(settings.audit_works)]
        return [self._child("audit", command, settings.data / "audit.log", 10)] if settings.audit_share_ppm else []

    def _child(self, name: str, arguments: list[str], log: Path, stop_seconds: float) -> Child:
        environment = {**os.environ, **self._settings.environment(), "PYTHONUNBUFFERED": "1"}
        return Child(name, [sys.executable, *arguments], environment, log, self._reaper, stop_seconds)


@contextmanager
def only_server_of(data: Path) -> Iterator[None]:
    """Holds the data directory. Raises ConfigurationError naming the process that holds it already."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "serve.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigurationError(f"{data} is served by process {file.read().strip()} already") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def refuse_busy_port(host: str, port: int) -> None:
    """Raises ConfigurationError when somebody listens on the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"port {port} on {host} cannot be used: {error.strerror}; set PORT") from None


@contextmanager
def stop_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise Stopped in the main thread; a second one while stopping is ignored."""
    raised = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Stopped(signal.Signals(number).name)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def tail(path: Path) -> str:
    """The last lines of a log."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
