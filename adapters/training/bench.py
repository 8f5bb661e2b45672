"""Train the demo adapters, fit their heads, and print who is found: offline, without a gateway.

    python -m adapters.training.bench --base DIR --out DIR [--datanet invented-facts|real-text] [--json]

Builds on the first run and reuses what it finds afterwards (delete the directory to repeat).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.demo import facts, real_text
from adapters.demo.contribution import Contribution
from adapters.demo.export import write_export
from adapters.training.config import HeadConfig, TrainingConfig
from adapters.training.fit import fit_head
from adapters.training.progress import TerminalBar
from adapters.training.question import Question
from adapters.training.train import train_adapter


def bench(
    datanet: str,
    contributions: Sequence[Contribution],
    questions: Sequence[Question],
    base_dir: Path,
    out_dir: Path,
    training: TrainingConfig,
    head: HeadConfig,
) -> dict[str, Any]:
    """Export, train, fit and measure one Datanet under `out_dir`; the fidelity report with the seconds of each part."""
    bar = TerminalBar()
    export = out_dir / f"{datanet}-export"
    if not export.exists():
        write_export(datanet, contributions, export)
    started = time.monotonic()
    package = out_dir / datanet
    trained = train_adapter(
        export, base_dir, package, seed=0, config=training, trainer="demo", host="demo", progress=bar
    )
    between = time.monotonic()
    fitted = fit_head(package, export, base_dir, config=head, questions=questions, progress=bar)
    seconds = {"train_call": round(between - started, 1), "fit_call": round(time.monotonic() - between, 1)}
    run = {"compute_ms": trained.compute_ms, "steps": trained.steps, "final_loss_ppm": trained.final_loss_ppm}
    return {"datanet": datanet, "seconds": seconds, "training": run, "fidelity": fitted.fidelity}


def table(result: dict[str, Any]) -> str:
    """The report as text: one line a row of the comparison."""
    report = result["fidelity"]
    held_out, pearson = report["held_out"], report["pearson_with_trace"]
    lines = [
        f"{result['datanet']}: target {report['target']}, seconds {result['seconds']}",
        f"  {held_out['answers']} answers, {held_out['correct']} right, {held_out['tokens']} tokens; "
        f"head against trace r = {_ppm(pearson)} a token",
        f"  {'scorer':<26} {'recall@1':<24} {'of right answers':<24} MRR",
    ]
    for name, row in report["rows"].items():
        right = _ppm(row["recall_at_1_of_right_answers"]) if "recall_at_1_of_right_answers" in row else "-"
        lines.append(f"  {name:<26} {_ppm(row['recall_at_1']):<24} {right:<24} {_ppm(row['mrr'])}")
    return "\n".join(lines)


def _ppm(estimate: dict[str, int]) -> str:
    low, value, high = (estimate[name] / 1e6 for name in ("low_ppm", "ppm", "high_ppm"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure attribution on the demo Datanets, offline.")
    parser.add_argument("--base", type=Path, required=True, help="base model directory")
    parser.add_argument("--out", type=Path, required=True, help="directory for exports and packages")
    parser.add_argument("--datanet", choices=(facts.DATANET, real_text.DATANET), default=facts.DATANET)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.datanet == facts.DATANET:
        data, questions, training = list(facts.contributions()), facts.heldout_questions(), facts.TRAINING_CONFIG
    else:
        cache = given.out / "debian"
        data = list(real_text.contributions(cache))
        questions, training = real_text.heldout_questions(cache), real_text.TRAINING_CONFIG
    head = HeadConfig(threads=given.threads)
    result = bench(given.datanet, data, questions, given.base, given.out, training, head)
    print(json.dumps(result) if given.json else table(result))


if __name__ == "__main__":
    main()
