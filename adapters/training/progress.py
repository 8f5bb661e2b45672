"""Progress of a long job: one function type, and the terminal bar that implements it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, note): called often; `done == total` ends the stage. Never raises."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Report nothing."""


class TerminalBar:
    """Draw each stage as one line on stderr: bar, count, note, elapsed and remaining seconds.

    On a terminal the line is redrawn in place, at most ten times a second; in a log file a stage prints its end only.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._started = 0.0
        self._drawn = 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._started, self._drawn = stage, now, 0.0
        ended = done >= total
        interactive = sys.stderr.isatty()
        if not ended and (not interactive or now - self._drawn < 0.1):
            return
        self._drawn = now
        line = _line(stage, done, total, note, now - self._started)
        sys.stderr.write(f"\r\x1b[K{line}" if interactive else line)
        if ended:
            sys.stderr.write("\n")
            self._stage = ""
        sys.stderr.flush()


def _line(stage: str, done: int, total: int, note: str, elapsed_s: float, width: int = 24) -> str:
    filled = width * done // max(total, 1)
    remaining_s = elapsed_s * (total - done) / done if done else 0.0
    clock = f"{elapsed_s:.0f} s" if done >= total else f"{elapsed_s:.0f} s, {remaining_s:.0f} s left"
    return f"{stage:<22} [{'#' * filled}{'.' * (width - filled)}] {done}/{total}  {note}  ({clock})"
