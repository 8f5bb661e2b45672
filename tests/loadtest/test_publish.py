"""What a load test leaves in the repository."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest import marked
from loadtest.publish import publish
from loadtest.reconcile import Finding, Reconciliation
from loadtest.stats import summary

LOAD = {"start": 0.5, "end": 1.5}


def report(proof: Reconciliation | None) -> dict[str, Any]:
    return {
        "shape": "8 users",
        "seconds": 120.4,
        "requests": 3,
        "models": {"base": 3},
        "rates": {"requests_per_second": 2.5, "tokens_per_second": 30.0, "error_rate": 0.0},
        "latencies_ms": {"ttft": summary([10.0, 20.0, 30.0]), "itl": summary([])},
        "generator_cpu_percent": {"mean": 3.0, "max": 5.0},
        "reconciliation": proof.json() if proof else None,
    }


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "PERFORMANCE.md").write_text(
        "before\n<!-- loadtest-cpu:begin -->\nold\n<!-- loadtest-cpu:end -->\nafter\n"
    )
    return tmp_path


def test_numbers_and_proof_are_published_between_the_marks(docs: Path) -> None:
    """The rest of the page stays; the JSON says on which machine and how busy it was."""
    proof = Reconciliation(compared=["client = ledger"])
    proof.requests["complete"] = 3
    proof.tokens_seen["complete"] = proof.tokens_billed["complete"] = 42
    written = json.loads(publish(report(proof), "cpu", LOAD, docs).read_text())
    assert (written["load_average"], written["machine"]["cores"] > 0) == (LOAD, True)
    page = (docs / "PERFORMANCE.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("<!-- loadtest-cpu:end -->\nafter\n")
    assert "old" not in page
    assert "| ttft | 3 | 20 | 29 | 30 | 30 |" in page
    assert "| complete | 3 | 42 | 42 |" in page
    assert "Reconciled: client = ledger." in page


def test_what_does_not_reconcile_says_so_on_the_page(docs: Path) -> None:
    """Nobody reads a table as good that is not."""
    publish(report(Reconciliation(findings=[Finding("not_billed", "req_1")])), "cpu", LOAD, docs)
    assert "**Does not reconcile**: 1 findings." in (docs / "PERFORMANCE.md").read_text()


def test_a_page_without_marks_is_refused(docs: Path) -> None:
    """Nothing is written in some other place."""
    with pytest.raises(ValueError, match="loadtest-gpu"):
        marked.replace(docs / "PERFORMANCE.md", "loadtest-gpu", "text")
