"""How a command ends: exit codes that scripts can trust, one line on stderr.

0  ok
1  a finding, or a verification that failed
2  wrong usage
3  the server said no
4  the server cannot be reached
70 a bug of ours (EX_SOFTWARE)
"""

FINDING, USAGE, REFUSED, UNREACHABLE, BUG = 1, 2, 3, 4, 70


class Failure(Exception):
    """Ends the command with `status` and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
