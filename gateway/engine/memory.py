"""Memory that a worker on a CPU keeps: glibc would hand large blocks back to the system, and every step map them anew.

A step's temporaries are as large as its logits, 6 MB at 32 x 49152, and beyond what glibc keeps by default: each is
mapped, faulted in page by page and unmapped.
"""

import ctypes

LARGEST_BLOCK = 32 << 20  # taken from the heap; glibc allows no more
KEPT = 256 << 20  # of free memory at the heap's end
GROWTH = 64 << 20  # of the heap, beyond what is asked for

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_freed_memory() -> bool:
    """Has glibc reuse blocks of up to 32 MiB in this process; False with another C library, where nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((M_MMAP_THRESHOLD, LARGEST_BLOCK), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, GROWTH))
    return all(mallopt(option, value) == 1 for option, value in options)
