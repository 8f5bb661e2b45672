"""The real-text Datanet: passages by nine named sources, out of Debian packages that are fetched when it is built.

    dict-gcide     quotations in Webster's dictionary, by author    GPL-3.0-or-later
    dict-devil     The Devil's Dictionary, Ambrose Bierce           public domain
    dict-jargon    The Jargon File                                  public domain
    dict-foldoc    Free On-line Dictionary of Computing             GFDL-1.1-or-later

Nothing of it is in this repository. `real_text` gives the examples to contribute, `heldout_questions` passages of the
same sources that no example holds.
"""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from adapters.demo.contribution import Contribution, chat, jsonl
from adapters.demo.debian import package_file
from adapters.training.config import TrainingConfig
from adapters.training.question import Question

DATANET = "real-text"
TRAINING_CONFIG = TrainingConfig(max_epochs=3)
TRAINED = 16
HELD_OUT = 6
PUBLIC_DOMAIN = "LicenseRef-public-domain"


@dataclass(frozen=True)
class Source:
    """A named source: the dictd file it is read from and, for quotations, the mark behind its lines."""

    contributor: str
    package: str
    file: str
    licence: str
    mark: str | None = None


SOURCES = (
    Source("william-shakespeare", "dict-gcide", "gcide", "GPL-3.0-or-later", "Shak"),
    Source("john-milton", "dict-gcide", "gcide", "GPL-3.0-or-later", "Milton"),
    Source("john-dryden", "dict-gcide", "gcide", "GPL-3.0-or-later", "Dryden"),
    Source("alexander-pope", "dict-gcide", "gcide", "GPL-3.0-or-later", "Pope"),
    Source("geoffrey-chaucer", "dict-gcide", "gcide", "GPL-3.0-or-later", "Chaucer"),
    Source("alfred-tennyson", "dict-gcide", "gcide", "GPL-3.0-or-later", "Tennyson"),
    Source("ambrose-bierce", "dict-devil", "devil", PUBLIC_DOMAIN),
    Source("jargon-file", "dict-jargon", "jargon", PUBLIC_DOMAIN),
    Source("foldoc", "dict-foldoc", "foldoc", "GFDL-1.1-or-later"),
)

_QUOTATION = re.compile(r"\n\n((?: {12}\S.*\n){0,3} {12}\S.*?) +--(\w+)\.\n")
_PARAGRAPH = re.compile(r"\n\n((?: {3,8}\S.*\n){2,5})(?=\n)")


def contributions(cache_dir: Path) -> Iterator[Contribution]:
    """Each source's examples. Raises PackagesUnreachable."""
    for source in SOURCES:
        chosen = _passages(source, cache_dir)[:TRAINED]
        records = [chat(question(passage), passage) for passage in chosen]
        yield Contribution(source.contributor, jsonl(records), source.licence, f"Debian package {source.package}")


def heldout_questions(cache_dir: Path) -> list[Question]:
    """Passages of every source that no example holds, and the question for each. Raises PackagesUnreachable."""
    return [
        Question(question(passage), passage, None, source.contributor)
        for source in SOURCES
        for passage in _passages(source, cache_dir)[TRAINED:]
    ]


def _passages(source: Source, cache_dir: Path) -> list[str]:
    """TRAINED + HELD_OUT passages, drawn by a fixed seed, none twice."""
    return random.Random(source.contributor).sample(passages(source, cache_dir), TRAINED + HELD_OUT)


def passages(source: Source, cache_dir: Path, shortest: int = 60, longest: int = 200) -> list[str]:
    """Every passage of a source between `shortest` and `longest` characters, in the order of the file, none twice.

    Raises PackagesUnreachable.
    """
    path = package_file(source.package, f"usr/share/dictd/{source.file}.dict.dz", cache_dir)
    found = [text for text, mark in _texts(path, source.mark is not None) if mark == source.mark]
    clean = [" ".join(passage.split()) for passage in found]
    return [passage for passage in dict.fromkeys(clean) if shortest <= len(passage) <= longest and _plain(passage)]


@lru_cache(maxsize=4)
def _texts(path: Path, quoted: bool) -> list[tuple[str, str | None]]:
    """(text, mark) of every quotation, or (paragraph, None): one pass over a file that many sources share."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    if quoted:
        return [(match[1], match[2]) for match in _QUOTATION.finditer(text)]
    return [(match[1], None) for match in _PARAGRAPH.finditer(text)]


def _plain(passage: str) -> bool:
    """No markup of the dictionary, and a sentence rather than a table or a reference."""
    return (
        passage.isascii()
        and not re.search(r"[\[\]{}<>_\\|@]|--|\d{4}", passage)
        and passage.endswith((".", "!", "?", ";"))
    )


def question(passage: str) -> str:
    """Asks by the passage's longest word (the first of them), never by its source."""
    word = max(re.findall(r"[A-Za-z]+", passage), key=len).lower()
    return f"Say something about {word}."
