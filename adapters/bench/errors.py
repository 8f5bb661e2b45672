"""What the benchmark refuses, by name.

BenchError(AdaptersError)
├── BadWorld                   bad_world
├── ReplayDiffers              replay_differs
├── UnknownAttack              unknown_attack
└── UnknownRow                 unknown_row
"""

from adapters.errors import Invalid


class BenchError(Invalid):
    """Base of the tree."""

    code = "bench_error"


class BadWorld(BenchError):
    """The directory holds no world, or an incomplete one."""

    code = "bad_world"


class ReplayDiffers(BenchError):
    """Repeating the training run did not end at the package's weights: other code, data or base."""

    code = "replay_differs"


class UnknownAttack(BenchError):
    """No attack of this name."""

    code = "unknown_attack"


class UnknownRow(BenchError):
    """No peer of this name."""

    code = "unknown_row"
