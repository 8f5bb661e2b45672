"""Near duplicates: examples that say again what an earlier example of the Datanet says.

The check `shingles-1` (docs/formats/datanet-version.md) is exact set arithmetic on the examples' bytes: no sampling and
no hash functions, so that whoever holds a version's export comes to the same result.

    text        NFKC, case-folded, without format characters; sentence punctuation and white space are one space
    shingles    every 8 consecutive bytes of its UTF-8 (a shorter text is one shingle)
    J(a, b)     |a & b| / |a | b| of two sets of shingles
    long        an answer (what is learnt) of 64 bytes or more: near duplicates when J(answers) >= 3/5
    short       any other answer: when J(answers) >= 4/5 and J(the last 256 bytes before it, and it) >= 4/5

A long answer is compared whatever was asked, since the question is not paid for and can be padded; a short one ("red.")
says something only together with its question. Who owns an example does not matter, so that nobody gains by a second
name. Pairs are found by prefix filtering (Bayardo, Ma, Srikant, 2007): of sets that overlap by a fraction, some element
is among the rarest few of both.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from adapters.errors import InvalidNearDuplicates
from adapters.example import Example

CHECK = "shingles-1"
SHINGLE_BYTES = 8
LONG_BYTES = 64
CONTEXT_BYTES = 256
LONG_JACCARD = Fraction(3, 5)
"""Above what a template makes of other facts (0.53 in `twenty-sources`), below a copy with 2 of 25 words changed."""
SHORT_JACCARD = Fraction(4, 5)
"""Above different facts about the same person (0.73 in `invented-facts`), below the same fact asked with "please"."""

SHARED = 8
"""Rare shingles that two examples must share before they are compared: with fewer, more pairs are compared in vain."""

_BETWEEN_WORDS = re.compile("[\\s.,;:!?\"'\u2018-\u201f\u2026]+")
Shingles = NDArray[np.uint64]


ACCEPT, SET_ASIDE = "accept", "set-aside"
"""What a Datanet does with near duplicates: nothing, or leave them out of its versions."""


def check_near_duplicates(choice: str) -> None:
    """Raises InvalidNearDuplicates."""
    if choice not in (ACCEPT, SET_ASIDE):
        raise InvalidNearDuplicates(f"near_duplicates is {ACCEPT} or {SET_ASIDE}, not {choice!r}")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Sorted shingles of an example: of its answer, and of what it is compared by (`view`)."""

    answer: Shingles
    view: Shingles
    long: bool

    @property
    def threshold(self) -> Fraction:
        return LONG_JACCARD if self.long else SHORT_JACCARD


def fingerprint(example: Example) -> Fingerprint:
    """The fingerprint of one example."""
    context, answer = (normalised(part) for part in _context_and_answer(example))
    shingles = shingles_of(answer)
    if len(answer) >= LONG_BYTES:
        return Fingerprint(shingles, shingles, True)
    return Fingerprint(shingles, shingles_of(context[-CONTEXT_BYTES:] + b" " + answer), False)


def normalised(text: str) -> bytes:
    """What is compared of a text, as UTF-8; of a text of punctuation alone, the text itself."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    visible = folded if folded.isascii() else "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return (_BETWEEN_WORDS.sub(" ", visible).strip() or text).encode()


def shingles_of(text: bytes) -> Shingles:
    """Every 8 consecutive bytes as a little-endian number, sorted, none twice; a shorter text is padded with zeros."""
    padded = np.frombuffer(text.ljust(SHINGLE_BYTES, b"\0"), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(padded, SHINGLE_BYTES)
    return np.unique(np.ascontiguousarray(windows).view("<u8").ravel())


def near(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether two examples are near duplicates."""
    if a.long != b.long:
        return False
    return _alike(a.view, b.view, a.threshold) and (a.long or _alike(a.answer, b.answer, a.threshold))


def jaccard(a: Fingerprint, b: Fingerprint) -> Fraction:
    """J by which two examples of one kind are compared, long or short; the lesser of the two of short ones."""
    views = [(a.view, b.view)] if a.long else [(a.view, b.view), (a.answer, b.answer)]
    return min(Fraction(common := _common(*pair), len(pair[0]) + len(pair[1]) - common) for pair in views)


def near_duplicates(prints: Sequence[Fingerprint]) -> dict[int, int]:
    """Which examples are set aside, and for which: index of each near duplicate of an earlier example that is kept.

    Of several such, the earliest. Examples that are set aside set nothing aside themselves. The result follows from the
    examples in their order alone.
    """
    found: dict[int, int] = {}
    index: defaultdict[int, list[int]] = defaultdict(list)
    prefixes = _prefixes(prints)
    for number, prefix in enumerate(prefixes):
        met = Counter(other for shingle in prefix.shingles for other in index.get(shingle, ()))
        likely = sorted(other for other, shared in met.items() if shared >= min(prefix.shared, prefixes[other].shared))
        same = next((other for other in likely if near(prints[number], prints[other])), None)
        if same is not None:
            found[number] = same
            continue
        for shingle in prefix.shingles:
            index[shingle].append(number)
    return found


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The rarest shingles of a view, as ranks, of which a near duplicate has at least `shared` among its own rarest."""

    shingles: list[int]
    shared: int


def _prefixes(prints: Sequence[Fingerprint]) -> list[_Prefix]:
    """Sets of n and m elements with J >= t have max(tn, tm) in common: all but tn - k of n hold k of these."""
    if not prints:
        return []
    every = np.concatenate([one.view for one in prints])
    values, inverse, counts = np.unique(every, return_inverse=True, return_counts=True)
    rank = np.empty(len(values), np.int64)
    rank[np.lexsort((values, counts))] = np.arange(len(values))
    sizes = np.cumsum([len(one.view) for one in prints])
    prefixes = []
    for one, part in zip(prints, np.split(rank[inverse], sizes[:-1]), strict=True):
        common = -(-len(part) * one.threshold.numerator // one.threshold.denominator)
        shared = min(SHARED, common)
        prefixes.append(_Prefix(np.sort(part)[: len(part) - common + shared].tolist(), shared))
    return prefixes


def _common(a: Shingles, b: Shingles) -> int:
    return len(np.intersect1d(a, b, assume_unique=True))


def _alike(a: Shingles, b: Shingles, least: Fraction) -> bool:
    """Whether J(a, b) >= least, in integers."""
    numerator, denominator = least.numerator, least.denominator
    if denominator * min(len(a), len(b)) < numerator * max(len(a), len(b)):
        return False
    common = _common(a, b)
    return denominator * common >= numerator * (len(a) + len(b) - common)


def _context_and_answer(example: Example) -> tuple[str, str]:
    """What is given and what is learnt, as training takes it (adapters/training/tokens.py)."""
    if example.messages is not None:
        parts = {True: "", False: ""}
        for message in example.messages:
            parts[message.role == "assistant"] += "\n" + message.content
        return parts[False], parts[True]
    return (example.prompt or "", example.completion or "") if example.text is None else ("", example.text)
