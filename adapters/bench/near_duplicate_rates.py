"""How close the benchmark's honest examples are to near duplicates, and which copies the check finds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

from adapters.bench import text
from adapters.bench.attack_texts import market, paraphrases, trivial_edits, wordnet_synonyms
from adapters.demo import facts, real_text
from adapters.demo.contribution import Contribution, chat
from adapters.example import Example, parse_examples
from adapters.near_duplicates import Fingerprint, fingerprint, jaccard, near_duplicates


def near_duplicate_rates(cache_dir: Path) -> dict[str, Any]:
    """Members `datanets`, `edits` and `passages` of the benchmark's JSON. Raises PackagesUnreachable."""
    given = {
        facts.DATANET: facts.contributions(),
        real_text.DATANET: real_text.contributions(cache_dir),
        text.DATANET: text.contributions(cache_dir),
    }
    return {
        "datanets": {name: _closest(contributions) for name, contributions in given.items()},
        "edits": _found(cache_dir),
        "passages": _passages(cache_dir),
    }


def rates_table(report: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [f"{'Datanet':<16}{'examples':>9}{'set aside':>10}{'closest long':>14}{'closest short':>14}"]
    for name, row in report["datanets"].items():
        long, short = (f"{value / 1e6:.2f}" for value in (row["closest_long_ppm"], row["closest_short_ppm"]))
        lines.append(f"{name:<16}{row['examples']:>9}{row['set_aside']:>10}{long:>14}{short:>14}")
    lines += [
        f"{name:<32}{row['found']:>4} of {row['copies']} copies found, median J {row['median_ppm'] / 1e6:.2f}"
        for name, row in report["edits"].items()
    ]
    row = report["passages"]
    return "\n".join([*lines, f"{row['examples']:,} passages: {row['set_aside']} set aside, {row['seconds']:.1f} s"])


def _closest(contributions: Iterable[Contribution]) -> dict[str, int]:
    """Of what is kept: the largest J between two examples with long answers, and between two with short ones."""
    prints = [fingerprint(example) for item in contributions for _, example in parse_examples(item.jsonl)]
    aside = near_duplicates(prints)
    kept = [one for number, one in enumerate(prints) if number not in aside]
    return {
        "examples": len(prints),
        "set_aside": len(aside),
        "closest_long_ppm": _largest([one for one in kept if one.long]),
        "closest_short_ppm": _largest([one for one in kept if not one.long]),
    }


def _largest(prints: list[Fingerprint]) -> int:
    return int(max((jaccard(a, b) for a, b in combinations(prints, 2)), default=0) * 1_000_000)


def _found(cache_dir: Path) -> dict[str, dict[str, int]]:
    """Copies of the market's examples, edited: how many of them are set aside, and how close they are."""
    every = [turn for given in market(cache_dir).values() for turn in given]
    vocabulary = sorted({word for _, answer in every for word in answer.split()})
    originals = [_fingerprint(*turn) for turn in every]
    found = {}
    synonyms = wordnet_synonyms(cache_dir)
    edits = trivial_edits(vocabulary) | {"synonyms of WordNet": lambda turn: paraphrases([turn], synonyms)[0]}
    for name, edit in edits.items():
        copies = [_fingerprint(*edit(turn)) for turn in every]
        aside = near_duplicates([*originals, *copies])
        alike = sorted(jaccard(a, b) for a, b in zip(originals, copies, strict=True))
        found[name] = {
            "copies": len(copies),
            "found": sum(number >= len(originals) for number in aside),
            "median_ppm": int(alike[len(alike) // 2] * 1_000_000),
        }
    return found


def _fingerprint(question: str, answer: str) -> Fingerprint:
    return fingerprint(Example.of(chat(question, answer)))


def _passages(cache_dir: Path) -> dict[str, Any]:
    """All passages of the benchmark's sources as one Datanet of texts: what the check costs and finds there."""
    texts = dict.fromkeys(passage for source in text.SOURCES for passage in real_text.passages(source, cache_dir, 20))
    started = time.perf_counter()
    aside = near_duplicates([fingerprint(Example(text=quotation)) for quotation in texts])
    return {"examples": len(texts), "set_aside": len(aside), "seconds": round(time.perf_counter() - started, 2)}
