"""Who is found, through the running gateway: asks every held-out question of the demo and ranks the served scores.

    python -m loadtest.bench_attribution --data DIR [--out docs/results]

The questions and the packages are those that `openledger serve` built under DIR/trained. Beside the served scores stand
the rows of the head's own fidelity report (exact trace, oracle, constant, data size, BM25), measured on the same
questions when the head was fitted.
"""

import argparse
import asyncio
import json
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from rich.table import Table

from loadtest.bench.machine import ROOT, describe
from loadtest.errors import LoadtestError, Usage
from loadtest.printer import printer

AT_ONCE = 4
MAX_TOKENS = 24
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Asked:
    """A held-out question and what came back: the owner's rank among the served scores (ties: the middle place)."""

    prompt: str
    answer: str
    contributor: str
    right: bool
    rank: float
    first: float  # 1 where the owner alone ranks first, 1/n where n tie
    tokens: int


async def ask(client: openai.AsyncOpenAI, model: str, question: dict[str, Any], gate: asyncio.Semaphore) -> Asked:
    """One greedy answer. The served scores are those of the whole answer."""
    async with gate:
        reply = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question["prompt"]}],
            temperature=0,
            max_tokens=MAX_TOKENS,
        )
    rows: list[dict[str, Any]] = reply.attribution["contributors"]  # type: ignore[attr-defined]
    scores = {row["contributor"]: row["score"] for row in rows}
    value = question["value"]  # None where no answer is the right one
    own, text = scores[question["contributor"]], reply.choices[0].message.content or ""
    above, tied = sum(s > own for s in scores.values()), sum(s == own for s in scores.values())
    return Asked(
        prompt=question["prompt"],
        answer=text,
        contributor=question["contributor"],
        right=value is not None and value.lower() in text.lower(),
        rank=above + (tied + 1) / 2,
        first=0.0 if above else 1 / tied,
        tokens=reply.usage.completion_tokens if reply.usage else 0,
    )


def wilson(share: float, count: int) -> tuple[float, float]:
    """95% score interval of a share of `count` trials (Wilson 1927)."""
    z2 = NORMAL_95**2 / count
    centre, spread = share + z2 / 2, NORMAL_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return max(0.0, (centre - spread) / (1 + z2)), min(1.0, (centre + spread) / (1 + z2))


def measure(asked: list[Asked]) -> dict[str, Any]:
    """recall@1 with its interval and MRR, over all answers and over the right ones."""

    def row(subset: list[Asked]) -> dict[str, Any]:
        if not subset:
            return {"answers": 0}
        recall = sum(one.first for one in subset) / len(subset)
        low, high = wilson(recall, len(subset))
        mrr = sum(1 / one.rank for one in subset) / len(subset)
        return {"answers": len(subset), "recall_at_1": recall, "low": low, "high": high, "mrr": mrr}

    return {"all": row(asked), "right": row([one for one in asked if one.right])}


async def run_datanet(client: openai.AsyncOpenAI, questions_file: Path) -> dict[str, Any]:
    """All questions of one demo Datanet, and the fidelity report of its head."""
    package = package_of(questions_file)
    fidelity = json.loads((package / "fidelity.json").read_text())
    questions = [json.loads(line) for line in questions_file.read_text().splitlines()]
    model, gate = f"{package.name.rpartition('-')[0]}/demo", asyncio.Semaphore(AT_ONCE)
    asked = await asyncio.gather(*[ask(client, model, question, gate) for question in questions])
    return {
        "model": model,
        "served": measure(asked),
        "fidelity": fidelity,
        "misses": [vars(one) for one in asked if one.first < 1],
    }


def package_of(questions_file: Path) -> Path:
    """The directory of the adapter that was trained for these questions."""
    return questions_file.with_name(questions_file.name.removesuffix(".questions.jsonl"))


def table(result: dict[str, Any]) -> Table:
    """One row a scorer."""
    shown = Table(title=f"{result['model']}: is the true contributor first?", title_justify="left")
    for column in ("scorer", "recall@1, all answers", "recall@1, right answers", "MRR"):
        shown.add_column(column)
    served = result["served"]
    shown.add_row(
        "served by the gateway", _share(served["all"]), _share(served["right"]), f"{served['all']['mrr']:.3f}"
    )
    for name, row in result["fidelity"].get("rows", {}).items():
        right = row.get("recall_at_1_of_right_answers")
        shown.add_row(name, _ppm(row["recall_at_1"]), _ppm(right) if right else "-", f"{row['mrr']['ppm'] / 1e6:.3f}")
    return shown


def _share(row: dict[str, Any]) -> str:
    if not row["answers"]:
        return "-"
    return f"{row['recall_at_1']:.3f} [{row['low']:.3f}, {row['high']:.3f}] of {row['answers']}"


def _ppm(row: dict[str, int]) -> str:
    return f"{row['ppm'] / 1e6:.3f} [{row['low_ppm'] / 1e6:.3f}, {row['high_ppm'] / 1e6:.3f}]"


def demo_environment(data: Path) -> dict[str, str]:
    """OPENAI_BASE_URL and OPENAI_API_KEY of the running demo. Raises Usage."""
    path = data / "demo.env"
    if not path.exists():
        raise Usage(f"{path} is missing: start the demo first (make serve)")
    pairs = (line.split("=", 1) for line in path.read_text().splitlines())
    return {name: shlex.split(value)[0] for name, value in pairs}


async def bench(data: Path) -> list[dict[str, Any]]:
    """Every demo Datanet under `data` whose adapter is built. Raises Usage when there is none."""
    environment = demo_environment(data)
    found = sorted((data / "trained").glob("*.questions.jsonl"))
    files = [file for file in found if (package_of(file) / "fidelity.json").exists()]
    if not files:
        raise Usage(f"no questions under {data / 'trained'}: the demo adapters were not built here")
    url, key = environment["OPENAI_BASE_URL"], environment["OPENAI_API_KEY"]
    async with openai.AsyncOpenAI(base_url=url, api_key=key) as client:
        return [await run_datanet(client, file) for file in files]


def main() -> int:
    """Command line: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(description="Measure served attribution on the demo's held-out questions.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="data directory of the running gateway")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="directory of the JSON result")
    given = parser.parse_args()
    try:
        results = asyncio.run(bench(given.data))
    except (LoadtestError, openai.APIError) as error:
        print(f"bench-attribution: {error}", file=sys.stderr)
        return 2
    for result in results:
        printer().print(table(result))
    document = {"machine": describe("cpu"), "results": results}
    (given.out / "attribution-served.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
