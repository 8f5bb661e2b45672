"""The part of a fidelity report that only retraining can give: LDS, its ceiling, leave-one-out, completeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adapters.training.bank import Bank
from adapters.training.calibrated import Choice, Evidence, label, query_scores
from adapters.training.datamodel import explained
from adapters.training.fidelity import Answers
from adapters.training.lds import Array, Index, Outcomes, ceiling, fidelity, lds, lds_beyond_owner
from adapters.training.lds import leave_one_out as correlations
from adapters.training.measures import PPM
from adapters.training.observe import Observations
from adapters.training.outcomes import sums
from adapters.training.ridge import Bilinear


def fidelity_against(
    bank: Bank,
    choice: Choice,
    fitted: Sequence[Bilinear],
    held_out: Sequence[Index],
    head: Bilinear,
    answers: Answers,
    measured: Outcomes,
    evidence: Evidence,
    calibration: Observations,
) -> dict[str, Any]:
    """Members of fidelity.json (docs/formats/head.md).

    `fitted` are the heads fitted without the half subsets `held_out`; without folds, nothing was fitted to the bank and
    `fitted` is the head itself. All but `candidates` are of the queries that chose nothing.
    """
    reported = measured.of(choice.reporting)

    def scores(of: Bilinear) -> Array:
        return query_scores(of, answers.seen, len(measured.owner))[choice.reporting]

    final, top = scores(head), ceiling(reported)
    judged = [scores(one) for one in fitted] if held_out else final
    score = lds(judged, reported, held_out)
    exact = {
        name: lds(sums(table, answers.seen.example, len(measured.owner)).numpy()[choice.reporting], reported)
        for name, table in answers.seen.scores.items()
    }
    milliseconds = bank.milliseconds()
    report: dict[str, Any] = {
        "bank": {
            "milliseconds_per_run": sum(milliseconds) // max(len(milliseconds), 1),
            "retrains": len(bank.runs),
            "seeds": sorted({run.seed for run in bank.runs}),
            "subsets": len(measured.members),
            "workers": bank.config.workers,
        },
        "candidates": {name: round(value * PPM) for name, value in choice.candidates.items()},
        "ceiling_ppm": round(top * PPM),
        "explained_ppm": round(
            explained(head.scores(calibration.u, calibration.h), evidence.margins, evidence.runs) * PPM
        ),
        "fidelity_ppm": round(fidelity(score, top) * PPM),
        "lds": score.record(),
        "lds_beyond_owner": lds_beyond_owner(judged, reported, held_out).record(),
        "lds_of_exact": {name: estimate.record() for name, estimate in exact.items()},
        "method": "calibrated",
        "target": label(choice.shares),
    }
    if measured.left_out is not None:
        found = asdict(correlations(final, reported))
        report["leave_one_out"] = {f"{name}_ppm": round(value * PPM) for name, value in found.items()}
    return report
