"""The benchmark's judge: every row's scores against a subset bank that retrained the world's adapter."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.bench.own_rows import OwnRow, calibrated_row, exact_rows, head_rows, observe_all, retrained_row
from adapters.bench.peer_rows import peer_rows
from adapters.bench.rows import ROWS
from adapters.bench.trained_world import TrainedWorld
from adapters.training.bank import BankConfig
from adapters.training.calibrated import Evidence
from adapters.training.lds import Outcomes, ceiling, lds, lds_beyond_owner, leave_one_out
from adapters.training.measures import mean_reciprocal_rank, pearson, recall_at_1
from adapters.training.progress import Progress, silent
from adapters.training.subsets import LEFT_OUT
from adapters.training.threads import threads

PPM = 1_000_000


def judge(
    world_dir: Path,
    config: BankConfig,
    *,
    compare_heads: bool = True,
    thread_count: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Rows and facts of the benchmark as JSON values; their keys are in docs/ATTRIBUTION.md, "Retraining as the judge".

    Peers that were scored before are read; others are left out with the reason. Raises what `TrainedWorld.load` does.
    """
    with threads(thread_count):
        trained = TrainedWorld.load(world_dir, config, thread_count, progress)
        world, fitting, queries = trained.world, trained.fitting, trained.queries
        bank, measured = trained.bank, trained.measured
        seen = observe_all(fitting, queries)
        runs = [run for run in bank.runs if run.kind != LEFT_OUT]
        labels = fitting.labels((list(seen.calibration_examples), seen.calibration))
        present = sorted({example.owner for example in fitting.data.examples})
        exact = {key: seen.calibration.scores[key] for key in ("trace", "ekfac")}
        margins = bank.margins(seen.calibration_examples, runs, progress)
        toward = list(exact)
        calibration = Evidence(margins, runs, present, exact | {"provenance": labels}, toward)
        asked = Evidence(bank.margins(queries, runs, progress), runs, present, seen.queries.scores, toward)
        rows = exact_rows(seen, fitting.model.parameter.numel()) | head_rows(fitting, seen, compared=compare_heads)
        rows["head-calibrated-k64-d8"] = calibrated_row(fitting, seen, calibration, measured)
        rows["exact-retrained"] = retrained_row(seen, bank, queries, asked)
    finished = [name for name in ROWS if (world_dir / "peers" / f"{name}.safetensors").is_file()]
    for peer, (scores, facts) in peer_rows(world_dir, finished).items():
        if scores is not None:
            rows[peer] = OwnRow([scores.double().numpy()], facts)
    reasons = {name: world_dir / "peers" / f"{name}.json" for name in ROWS if name not in rows}
    failed = {name: json.loads(path.read_text()) for name, path in reasons.items() if path.is_file()}
    kinds = np.array([line.kind for line in world.queries])
    reported = {key: _row(row, measured, kinds) for key, row in rows.items()}
    for key, row in rows.items():
        if row.tokens is not None:
            target = fitting.regime.exact if key == "head-served" else "ekfac" if "ekfac" in key else "trace"
            found = pearson(row.tokens, seen.queries.scores[target].double(), seen.queries.example)
            reported[key][f"pearson_with_{target}"] = found.record()
    return {
        "adapter": world.facts["weights"],
        "bank": {"milliseconds_per_run": bank.milliseconds(), **asdict(config), "retrains": len(bank.runs)},
        "calibration_tokens": len(seen.calibration.example),
        "ceiling_ppm": {kind: round(ceiling(measured.of(_at(kinds, kind))) * PPM) for kind in _kinds(kinds)},
        "contributors": list(world.contributors),
        "date": datetime.now(UTC).date().isoformat(),
        "rows": reported | failed,
    }


def _row(row: OwnRow, measured: Outcomes, kinds: np.ndarray) -> dict[str, Any]:
    """A row's facts and, per kind of query, what it predicts of retraining and whom it ranks first."""
    only = set(row.facts.get("reporting", range(len(kinds))))
    report: dict[str, Any] = {key: value for key, value in row.facts.items() if key != "reporting"}
    for kind in _kinds(kinds):
        at = [index for index in _at(kinds, kind) if index in only]
        if not at:
            continue
        part, tables = measured.of(at), [table[at] for table in row.scores]
        mean = np.mean(tables, axis=0)
        judged = tables if row.held_out else mean
        owners, first = part.owner.tolist(), torch.from_numpy(mean)
        report[kind] = {
            "lds": lds(judged, part, row.held_out).record(),
            "lds_beyond_owner": lds_beyond_owner(judged, part, row.held_out).record(),
            "mrr": mean_reciprocal_rank(first, owners).record(),
            "recall_at_1": recall_at_1(first, owners).record(),
        }
        if part.left_out is not None:
            found = asdict(leave_one_out(mean, part))
            report[kind]["leave_one_out"] = {key: round(value * PPM) for key, value in found.items()}
    return report


def _kinds(kinds: np.ndarray) -> list[str]:
    return [*dict.fromkeys(kinds.tolist())]


def _at(kinds: np.ndarray, kind: str) -> list[int]:
    return np.flatnonzero(kinds == kind).tolist()


def text(report: dict[str, Any]) -> str:
    """Fixed-width table, best held-out LDS first."""
    lines = [
        f"ceilings {report['ceiling_ppm']}, {report['bank']['retrains']} retrains, "
        f"{report['calibration_tokens']} calibration tokens",
        f"{'row':<26}{'held-out: LDS [95%]':<24}{'beyond':<8}{'LOO w':<8}{'own: LDS [95%]':<24}{'beyond':<8}"
        f"{'recall@1':<10}{'r':<7}{'build s':>9}{'us/token':>10}{'bytes':>14}  forward only",
    ]
    scored = {key: row for key, row in report["rows"].items() if "reason" not in row}
    for key, row in sorted(
        scored.items(), key=lambda pair: -pair[1].get("held-out", pair[1]["own-answer"])["lds"]["ppm"]
    ):
        held, own = row.get("held-out"), row.get("own-answer")
        r = next((row[name]["ppm"] / PPM for name in row if name.startswith("pearson_with")), None)
        lines.append(
            f"{key:<26}{_lds(held)}{_lds(own, loo=False)}"
            f"{(held or own)['recall_at_1']['ppm'] / PPM:<10.3f}{'' if r is None else f'{r:.3f}':<7}"
            f"{row['build_seconds']:>9.1f}{row['microseconds_per_scored_token']:>10.0f}{row['bytes_stored']:>14,}"
            f"  {'yes' if row['forward_only'] else 'no'}"
        )
    lines += [f"{key:<26}not run: {row['reason']}" for key, row in report["rows"].items() if "reason" in row]
    return "\n".join(lines)


def _lds(part: dict[str, Any] | None, loo: bool = True) -> str:
    if part is None:
        return f"{'-':<24}{'-':<8}" + (f"{'-':<8}" if loo else "")
    low, value, high = (part["lds"][key] / PPM for key in ("low_ppm", "ppm", "high_ppm"))
    beyond = f"{part['lds_beyond_owner']['ppm'] / PPM:.3f}"
    effect = part.get("leave_one_out", {}).get("spearman_within_query")
    within = "" if not loo else f"{'-':<8}" if effect is None else f"{effect / PPM:<8.3f}"
    return f"{f'{value:.3f} [{low:.2f}, {high:.2f}]':<24}{beyond:<8}{within}"
