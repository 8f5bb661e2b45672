"""Training on this machine: the one command that loads torch, and only when it runs."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.failures import FINDING, USAGE, Failure


@dataclass(frozen=True)
class LocalRun:
    """What to train and where. `overrides` are fields of adapters.training.config.TrainingConfig."""

    export: Path
    base: Path
    out: Path
    seed: int
    overrides: dict[str, Any]
    trainer: str
    host: str
    questions: Path | None
    with_head: bool
    replace: bool

    def train(self) -> dict[str, Any]:
        """Trains, fits the head, and returns what came out. Raises Failure."""
        from adapters.errors import AdaptersError
        from adapters.training.errors import CheckpointMismatch
        from adapters.training.progress import TerminalBar
        from adapters.training.work import work_dir

        bar = TerminalBar()
        try:
            try:
                trained = self._train(bar)
            except CheckpointMismatch:
                if not self.replace:
                    raise
                shutil.rmtree(work_dir(self.out))
                trained = self._train(bar)
            done: dict[str, Any] = {
                "package": str(trained.package_dir),
                "weights": trained.weights_digest,
                "datanet_version": trained.datanet_version,
                "contributors": list(trained.contributors),
                "steps": trained.steps,
                "final_loss_ppm": trained.final_loss_ppm,
                "compute_ms": trained.compute_ms,
            }
            return done | (self._fit(bar) if self.with_head else {})
        except (AdaptersError, ValueError, OSError) as error:
            raise Failure(FINDING, f"training failed: {error}") from error

    def _train(self, bar: Any) -> Any:
        from adapters.training.config import TrainingConfig
        from adapters.training.train import train_adapter

        return train_adapter(
            self.export,
            self.base,
            self.out,
            seed=self.seed,
            config=TrainingConfig(**self.overrides),
            trainer=self.trainer,
            host=self.host,
            progress=bar,
        )

    def _fit(self, bar: Any) -> dict[str, Any]:
        from adapters.training.fit import fit_head

        questions = read_questions(self.questions) if self.questions else None
        fitted = fit_head(self.out, self.export, self.base, questions=questions, progress=bar)
        return {"head": fitted.head_digest, "fidelity": fitted.fidelity}


def read_questions(path: Path) -> list[Any]:
    """JSON lines of prompt, answer, value, contributor. Raises Failure naming the line."""
    from adapters.training.question import Question

    questions = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            questions.append(Question(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise Failure(USAGE, f"{path}, line {number}: {error}") from None
    return questions
