"""How a load test or a benchmark ends, as an exit code that scripts can trust.

LoadtestError
├── Usage          2  wrong options, or a setting that cannot be run here
├── Unreachable    4  no server answers
└── Refused        5  the server said no to something that the run needs

0 is success, 1 a missed service level objective, 3 a reconciliation that found a difference.
"""

OK, SLO_MISSED, NOT_RECONCILED = 0, 1, 3


class LoadtestError(Exception):
    """Ends the run with `status` and one line."""

    status = 2


class Usage(LoadtestError):
    status = 2


class Unreachable(LoadtestError):
    status = 4


class Refused(LoadtestError):
    status = 5
