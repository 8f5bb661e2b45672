"""What the worker's process keeps of freed memory."""

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from gateway.engine.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
np.ones(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(1 << 20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(choice: str) -> tuple[str, int]:
    """What was said, and the page faults of making and dropping 8 MB fifty times."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, choice], capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept, int(count)


def test_blocks_of_megabytes_are_reused() -> None:
    """8 MB are faulted in once and not fifty times, as they are without."""
    kept, count = faults("keep")
    if kept == "False":
        pytest.skip("not glibc")
    _, without = faults("leave")
    pages = (8 << 20) // resource.getpagesize()
    assert count < 5 * pages
    assert without > 5 * count
