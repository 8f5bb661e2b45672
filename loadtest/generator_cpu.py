"""How busy the load generator itself is: a generator at its limit measures itself."""

import time
from dataclasses import dataclass, field

import psutil

WARN_PERCENT = 80.0


@dataclass
class GeneratorCpu:
    """CPU of this process in percent of one core, sampled between calls of `sample`."""

    samples: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._sampled = time.monotonic()

    def sample(self, least_seconds: float = 0.5) -> None:
        """Takes the CPU since the last sample, unless that is too recent to mean anything."""
        if time.monotonic() - self._sampled >= least_seconds:
            self._sampled = time.monotonic()
            self.samples.append(self._process.cpu_percent())

    @property
    def mean(self) -> float:
        return sum(self.samples) / len(self.samples) if self.samples else 0.0

    @property
    def highest(self) -> float:
        return max(self.samples, default=0.0)

    @property
    def is_too_busy(self) -> bool:
        return self.highest > WARN_PERCENT
