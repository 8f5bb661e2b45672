"""Fit the attribution head of a trained package and write its fidelity report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.canonical import canonical_json
from adapters.digests import digest, file_digest
from adapters.package import FIDELITY, HEAD
from adapters.training.bank import Bank, BankConfig
from adapters.training.calibrated import BANK, Evidence, choose, folds
from adapters.training.config import HeadConfig
from adapters.training.fidelity import Answers, fidelity_report
from adapters.training.fidelity_bank import fidelity_against
from adapters.training.fitting import Fitting
from adapters.training.head import AttributionHead
from adapters.training.observe import Observations
from adapters.training.outcomes import outcomes
from adapters.training.progress import Progress, silent
from adapters.training.question import Question
from adapters.training.ridge import Bilinear
from adapters.training.subsets import LEFT_OUT
from adapters.training.threads import threads
from adapters.training.tokens import TokenExample


@dataclass(frozen=True)
class FittedHead:
    """A head written beside the PEFT files of its package, and its fidelity report (canonical JSON values)."""

    head_path: Path
    head_digest: str
    fidelity: dict[str, Any]


def fit_head(
    package_dir: Path,
    export_dir: Path,
    base_dir: Path,
    *,
    config: HeadConfig | None = None,
    questions: Sequence[Question] | None = None,
    bank: BankConfig | None = None,
    progress: Progress = silent,
) -> FittedHead:
    """Fit `attribution_head.safetensors` and `fidelity.json` into `package_dir`.

    Calibrates on contexts the adapter was not trained on; reports the correlation with the exact scorers on the model's
    own greedy answers to `questions` (unseen ones; without them, to re-contextualised prompts of the Datanet that
    calibration did not use), and who owns them against the baselines. With `bank`, the subset bank beside the package
    is trained as far as it is missing, chooses what the head is fitted to, and measures its fidelity. Deterministic.
    A package without a training record was trained elsewhere: its head is fitted to EK-FAC influence of the Datanet at
    the final weights. Raises DatanetMismatch, BaseMismatch, TraceMissing, ExportMismatch, UnsupportedBase, UnevenRanks,
    BankMismatch, BankInterrupted.
    """
    config = config or HeadConfig()
    with threads(config.threads):
        fitting = Fitting.load(package_dir, export_dir, base_dir, config, progress)
        calibration = fitting.calibration(with_exact=bank is not None)
        generated, answers = fitting.answers(questions, with_exact=bank is not None)
        described = fitting.describe(calibration) | {"position_local_with_full": fitting.locality(generated).record()}
        if bank is None:
            head = fitting.solve(calibration, fitting.target(calibration))
        else:
            trained = fitting.bank(bank)
            trained.train(progress)
            head, measured = _judge(fitting, trained, calibration, generated, answers)
            described |= measured
        return _write(fitting, head, fidelity_report(head, answers, fitting.data, config.seed, described))


def size_bank(
    package_dir: Path,
    export_dir: Path,
    base_dir: Path,
    bank: BankConfig,
    minutes: float,
    progress: Progress = silent,
) -> BankConfig:
    """The largest bank of `bank`'s shape that trains in `minutes`, from the time of its first two runs of a worker.

    Its first runs are kept. At least 8 subsets, at most those there are. Raises what `fit_head` does.
    """
    with threads(bank.threads):
        fitting = Fitting.load(package_dir, export_dir, base_dir, HeadConfig(threads=bank.threads), progress)
        first = fitting.bank(bank)
        started = time.monotonic()
        count = first.train(progress, at_most=2 * bank.workers * bank.batch)
        seconds = (time.monotonic() - started) / max(count, 1)
    others = len(first.runs) - bank.seeds * bank.subsets
    affordable = int((60 * minutes / seconds - others) / bank.seeds) if count else bank.subsets
    return replace(bank, subsets=max(8, affordable - affordable % 2))


def _judge(
    fitting: Fitting,
    bank: Bank,
    calibration: tuple[list[TokenExample], Observations],
    generated: Sequence[TokenExample],
    answers: Answers,
) -> tuple[Bilinear, dict[str, Any]]:
    """The head, and what the bank measured of it, as members of the fidelity report."""
    examples, seen = calibration
    queries = [replace(text, owner=owner) for text, owner in zip(generated, answers.asked.truth, strict=True)]
    measured = outcomes(bank, queries, fitting.progress)
    evidence = Evidence(
        margins=bank.margins(examples, [run for run in bank.runs if run.kind != LEFT_OUT], fitting.progress),
        runs=[run for run in bank.runs if run.kind != LEFT_OUT],
        present=sorted({example.owner for example in fitting.data.examples}),
        targets=seen.scores | {"provenance": fitting.labels(calibration)},
        toward=list(seen.scores),
    )
    choice = choose(seen, evidence, answers.seen, measured, fitting.regime.ridge_ppm / 1e6)

    def fitted(without: Any = None) -> Bilinear:
        return fitting.solve(calibration, evidence.mixed(choice.shares, without))

    head = fitted()
    held_out = folds(len(measured.members)) if BANK in choice.shares else []
    heads = [fitted(fold) for fold in held_out] or [head]
    return head, fidelity_against(bank, choice, heads, held_out, head, answers, measured, evidence, calibration[1])


def _write(fitting: Fitting, head: Bilinear, report: dict[str, Any]) -> FittedHead:
    names = list(fitting.model.modules)
    content = canonical_json(report)
    whole = AttributionHead(
        tensors=head,
        taps=tuple(names[i] for i in fitting.taps),
        contributors=fitting.data.contributors,
        base=fitting.base.digest,
        weights=fitting.weights,
        datanet_version=fitting.data.version.digest,
        fidelity=digest(content),
        method=report["method"],
    )
    (fitting.package_dir / FIDELITY).write_bytes(content)
    whole.save(fitting.package_dir / HEAD)
    return FittedHead(fitting.package_dir / HEAD, file_digest(fitting.package_dir / HEAD), report)
