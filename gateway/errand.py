"""A short-lived child of the supervisor: preparing the base model, building the demo, training."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from gateway.child import die_with_parent, end_group

POLL_SECONDS = 0.1


def run_errand(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    each_turn: Callable[[], None] = lambda: time.sleep(POLL_SECONDS),
) -> int:
    """Runs `python <arguments>`, its output on our stderr; calls `each_turn` until it ends; returns its exit status.

    An exception out of `each_turn` (a signal, above all) takes the errand's whole process group with it.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        while process.poll() is None:
            each_turn()
        return process.returncode
    finally:
        end_group(process)
