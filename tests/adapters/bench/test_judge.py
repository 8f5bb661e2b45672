"""The judge on a tiny world: every row beside the bank, and what is written."""

import json
import shutil
from pathlib import Path

import pytest

from adapters.bench.figure import write_report
from adapters.bench.judge import judge, text
from adapters.bench.peer_rows import peer_rows
from adapters.training.bank import BankConfig


@pytest.fixture(scope="module")
def judged_dir(
    base_dir: Path, export_dir: Path, package_dir: Path, world_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A world beside its package, work files and export, as `build_world` leaves them."""
    root = tmp_path_factory.mktemp("judged")
    shutil.copytree(package_dir, root / "colours")
    shutil.copytree(package_dir.with_name("colours.work"), root / "colours.work")
    shutil.copytree(export_dir, root / "colours-export")
    shutil.copytree(world_dir, root / "colours-world")
    return root / "colours-world"


def test_every_row_is_judged_by_retraining(judged_dir: Path, tmp_path: Path) -> None:
    """Exact scorers, heads, the calibrated head and peers; an oracle has nothing beyond the owner."""
    peer_rows(judged_dir, ["random", "oracle-owner", "data-size"])
    config = BankConfig(subsets=6, seeds=2, workers=1, batch=8)
    report = judge(judged_dir, config, thread_count=1)
    rows = report["rows"]
    assert {"exact-trace", "exact-ekfac", "head-trace-k32-d8", "head-calibrated-k64-d8", "random"} <= set(rows)
    for name, row in rows.items():
        for kind in ("held-out", "own-answer"):
            if kind in row:
                found = row[kind]["lds"]
                assert -1e6 <= found["low_ppm"] <= found["high_ppm"] <= 1e6, name
    assert abs(rows["oracle-owner"]["held-out"]["lds_beyond_owner"]["ppm"]) < 1
    assert rows["oracle-owner"]["held-out"]["recall_at_1"]["ppm"] == 1_000_000
    assert "leave_one_out" in rows["exact-trace"]["held-out"]
    assert {"pearson_with_trace", "forward_only", "bytes_stored"} <= set(rows["head-trace-full"])
    assert "exact-trace" in text(report)
    write_report(report, tmp_path / "attribution-colours")
    assert json.loads((tmp_path / "attribution-colours.json").read_text())["bank"]["retrains"] == 1 + 2 * (6 + 1 + 3)
    assert (tmp_path / "attribution-colours.svg").read_text().startswith("<?xml")
