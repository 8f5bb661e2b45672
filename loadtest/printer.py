"""Where reports are printed."""

import sys

from rich.console import Console

FILE_WIDTH = 132  # of a report that goes to a file or a pipe: tables are not folded to 80 columns


def printer() -> Console:
    """The console on stdout."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
