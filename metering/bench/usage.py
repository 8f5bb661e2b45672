"""What this process and the helpers that it started take: memory and processor time, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


def resident_kib(name: str) -> int:
    """VmRSS, or VmHWM, its highest value (within a batch it goes up and down by 20 MiB); summed over the processes."""
    return sum(_status(pid, name) for pid in _pids())


def cpu_seconds() -> float:
    """User and system time, in steps of a tick (10 ms)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in _pids()]
    return sum(int(user) + int(system) for *_, user, system in (row[:13] for row in fields)) * TICK_SECONDS


def _pids() -> list[int]:
    """This process and its children, as far as its first thread started them."""
    own = os.getpid()
    return [own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())]


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"no {name} in /proc/{pid}/status")
