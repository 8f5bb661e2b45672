"""One supervised child process: a process group of its own, a log file, restart with growing pauses."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway.reaper import Reaper

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # running this long forgives earlier crashes


@dataclass
class Child:
    """A command that is kept running. All calls from the thread that started it (PR_SET_PDEATHSIG is per thread)."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    reaper: Reaper
    stop_seconds: float
    crashes: int = 0  # in a row
    _process: subprocess.Popen | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)
    _start_again: float = field(default=0.0, init=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the command as leader of a new process group, its output appended to the log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.reaper.watch(self._process.pid)
        self._started = time.monotonic()

    def tend(self) -> int | None:
        """Called often: starts what is due. Returns the exit status of a crash when it is first seen."""
        if self._process is None:
            if time.monotonic() >= self._start_again:
                self.start()
            return None
        status = self._process.poll()
        if status is None:
            return None
        self._bury()
        self.crashes = 1 if time.monotonic() - self._started > STEADY_SECONDS else self.crashes + 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (self.crashes - 1), LONGEST_PAUSE_SECONDS)
        self._start_again = time.monotonic() + pause
        return status

    def terminate(self) -> None:
        """Asks the process to end."""
        if self.is_running:
            assert self._process is not None
            self._process.terminate()

    def stop(self) -> None:
        """Asks, waits, and then kills the whole group."""
        self.terminate()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_seconds)
            self._bury()

    def _bury(self) -> None:
        """Kills what the process left in its group, and waits until it is gone."""
        assert self._process is not None
        end_group(self._process)
        self.reaper.forget(self._process.pid)
        self._process = None


def end_group(leader: subprocess.Popen) -> None:
    """SIGKILL to the group of a process; returns when the leader, and whoever of it was adopted, is gone."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-leader.pid, 0)


def adopt_orphans() -> None:
    """Makes this process the parent of its orphaned descendants: a killed worker frees gigabytes before it is gone."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Asks the kernel for SIGTERM when the thread that started this process is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
