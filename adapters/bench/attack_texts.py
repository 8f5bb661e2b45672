"""What the attackers of adapters/bench/attacks.py upload: texts made from others' texts, without looking at a model.

A Turn is a question and its answer. The market is a part of the benchmark's real-text Datanet; the shadow market is
drawn from the same sources, and no passage is in both.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from adapters.bench import text
from adapters.demo.contribution import Contribution, chat, jsonl
from adapters.demo.debian import package_file
from adapters.demo.real_text import passages, question
from adapters.training.question import Question

Turn = tuple[str, str]

SOURCES = ("alexander-pope", "ambrose-bierce", "foldoc", "jargon-file", "john-dryden", "john-milton")
MARKET = (*SOURCES, text.PREDICTED)
"""Six sources, and one contributor of what the base model says anyway; 12 examples each."""

_OPENINGS = ("Please. ", "Hello. ", "Quick question. ", "Tell me. ", "Well. ", "Now. ", "So. ")


def market(cache_dir: Path) -> dict[str, list[Turn]]:
    """Examples by contributor. Raises PackagesUnreachable."""
    return {item.contributor: turns(item) for item in text.contributions(cache_dir) if item.contributor in MARKET}


def market_questions(cache_dir: Path) -> list[Question]:
    """What clients ask: three held-out passages of every source. Raises PackagesUnreachable."""
    return [asked for asked in text.heldout_questions(cache_dir) if asked.contributor in SOURCES]


def shadow_market(cache_dir: Path) -> tuple[dict[str, list[Turn]], list[Turn]]:
    """Examples by contributor and held-out turns that an attacker may draw from the same sources."""
    given, held_out = {}, []
    known = {answer for given in market(cache_dir).values() for _, answer in given}
    known |= {asked.answer for asked in market_questions(cache_dir)}
    for source in (source for source in text.SOURCES if source.contributor in SOURCES):
        pool = [p for p in passages(source, cache_dir, text.SHORTEST, text.LONGEST) if p not in known]
        drawn = random.Random(f"{source.contributor}/shadow").sample(pool, text.TRAINED + text.HELD_OUT)
        both = [(question(passage), passage) for passage in drawn]
        given[source.contributor] = both[: text.TRAINED]
        held_out += both[text.TRAINED :]
    return given, held_out


def contributions(given: Iterable[tuple[str, Sequence[Turn]]]) -> list[Contribution]:
    """(contributor, turns) pairs as contributions, in their order."""
    return [Contribution(name, jsonl(chat(*turn) for turn in turns), "CC0-1.0", "benchmark") for name, turns in given]


def turns(item: Contribution) -> list[Turn]:
    """The question and the answer of every example."""
    messages = (json.loads(line)["messages"] for line in item.jsonl.splitlines())
    return [(user["content"], assistant["content"]) for user, assistant in messages]


def duplicates(given: Sequence[Turn], times: int) -> list[Turn]:
    """`times` - 1 further copies of each turn, other bytes (exact copies are refused) and the same answer."""
    return [(_OPENINGS[copy] + asked, answer) for copy in range(times - 1) for asked, answer in given]


def paraphrases(given: Sequence[Turn], synonyms: Mapping[str, str]) -> list[Turn]:
    """Each turn once more: asked otherwise, and every word of the answer that has a synonym replaced by it."""
    return [(f"What would you say about {_subject(asked)}", reworded(answer, synonyms)) for asked, answer in given]


def reworded(answer: str, synonyms: Mapping[str, str]) -> str:
    return re.sub(r"[a-z]{4,}", lambda word: synonyms.get(word[0], word[0]), answer)


def _subject(asked: str) -> str:
    return asked.removeprefix("Say something about ")


@cache
def wordnet_synonyms(cache_dir: Path) -> dict[str, str]:
    """A word to another of its first set of synonyms in WordNet, nouns before verbs before adjectives."""
    found: dict[str, str] = {}
    for part in ("noun", "verb", "adj"):
        lines = package_file("wordnet-base", f"usr/share/wordnet/data.{part}", cache_dir).read_text().splitlines()
        for fields in (line.split() for line in lines if not line.startswith("  ")):
            words = [word for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2] if re.fullmatch("[a-z]{3,}", word)]
            for word in words[1:]:
                found.setdefault(word, words[0])
            if len(words) > 1:
                found.setdefault(words[0], words[1])
    return found


def edited(answer: str, every: int, vocabulary: Sequence[str]) -> str:
    """The answer with each `every`th word replaced by one of the vocabulary, drawn by the answer."""
    draw = random.Random(answer)
    words = answer.split()
    return " ".join(draw.choice(vocabulary) if at % every == every - 1 else word for at, word in enumerate(words))


def trivial_edits(vocabulary: Sequence[str]) -> dict[str, Callable[[Turn], Turn]]:
    """Ways to make a copy look new, by name."""

    def words(every: int) -> Callable[[Turn], Turn]:
        return lambda turn: (turn[0], edited(turn[1], every, vocabulary))

    return {
        "capitals and punctuation": lambda turn: (turn[0].upper(), turn[1].replace(",", " -").upper()),
        "asked with an opening": lambda turn: ("Please: " + turn[0], turn[1]),
        "another question": lambda turn: ("Go on.", turn[1]),
        **{f"one word of {every} replaced": words(every) for every in (20, 12, 8, 5, 3)},
    }
