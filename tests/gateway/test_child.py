"""Supervised children: restarted when they crash, and gone when the supervisor is."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gateway.child import Child
from gateway.reaper import Reaper

FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])
time.sleep(99)
"""


@pytest.fixture
def reaper():
    reaper = Reaper()
    yield reaper
    reaper.close()


def child(code: str, log: Path, reaper: Reaper) -> Child:
    return Child("test", [sys.executable, "-c", code], {}, log, reaper, stop_seconds=5)


def until(true, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_a_crash_is_reported_once_and_repaired(tmp_path: Path, reaper: Reaper) -> None:
    """Its output is in the log; the pause grows."""
    crashing = child("print('boom'); raise SystemExit(7)", tmp_path / "log", reaper)
    crashing.start()
    statuses = []
    until(lambda: statuses.append(crashing.tend()) or crashing.crashes == 2)
    assert [status for status in statuses if status is not None] == [7, 7]
    assert (tmp_path / "log").read_text() == "boom\nboom\n"
    assert crashing.tend() is None
    assert not crashing.is_running


def test_stopping_takes_grandchildren_along(tmp_path: Path, reaper: Reaper) -> None:
    """The engine has processes of its own."""
    family = child(FAMILY, tmp_path / "log", reaper)
    family.start()
    assert family.pid is not None
    process = psutil.Process(family.pid)
    until(lambda: process.children())
    everyone = [process, *process.children()]
    family.stop()
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in everyone))


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    """kill -9 gives it no chance to clean up; the reaper does."""
    code = f"""
import time
from pathlib import Path
from gateway.child import Child
from gateway.reaper import Reaper
import sys
one = Child("test", [sys.executable, "-c", {FAMILY!r}], {{}}, Path({str(tmp_path / "log")!r}), Reaper(), 5)
one.start()
print(one.pid, flush=True)
time.sleep(99)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    process = psutil.Process(int(supervisor.stdout.readline()))
    until(lambda: process.children())
    everyone = [process, *process.children(), *psutil.Process(supervisor.pid).children()]
    supervisor.kill()
    supervisor.wait()
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in everyone))
