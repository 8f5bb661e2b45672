"""What one run shares among its users: the workload, the models, and everything that was seen."""

import random
import time
from dataclasses import dataclass, field

from loadtest.behaviours import Ask, Workload
from loadtest.observed import Observed
from loadtest.popularity import pick


@dataclass
class Load:
    """The state of a run. `models` may grow while it lasts; the first is the most popular."""

    workload: Workload
    models: list[str]
    popularity: str
    seed: int = 0
    seen: list[Observed] = field(default_factory=list)
    registered: list[str] = field(default_factory=list)
    registration_errors: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    ended: float | None = None

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def next(self) -> Ask:
        """The next request of the run, whoever makes it."""
        return self.workload.ask(self._rng, pick(self._rng, self.popularity, self.models))

    def gap_seconds(self, rate: float) -> float:
        """Time to the next arrival of a Poisson process of `rate` a second."""
        return self._rng.expovariate(rate)

    @property
    def seconds(self) -> float:
        """How long requests were made and answered."""
        return (self.ended or time.perf_counter()) - self.began
