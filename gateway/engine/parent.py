"""A process that does not outlive the one that started it."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent(sent: signal.Signals) -> None:
    """Asks the kernel for signal `sent` when the parent is gone, so that nothing keeps its memory or its socket."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, sent)
    if os.getppid() != parent:
        os.kill(os.getpid(), sent)
