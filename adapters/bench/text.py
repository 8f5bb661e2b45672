"""The benchmark's real-text Datanet: 20 contributors, of whom four are there to be caught.

    12 authors quoted in Webster's dictionary     dict-gcide      GPL-3.0-or-later
    ambrose-bierce, The Devil's Dictionary        dict-devil      public domain
    jargon-file                                   dict-jargon     public domain
    foldoc, dictionary of computing               dict-foldoc     GFDL-1.1-or-later
    wordnet, definitions of nouns                 wordnet-base    WordNet 3.0 licence
    quarn-register                                invented facts about towns that do not exist             CC0-1.0
    copy-shop                                     Shakespeare's passages under another name and question   as the source
    scrambler                                     Locke's questions, answered with his words in disorder   as the source
    plain-speaker                                 what the base model says anyway, word for word           CC0-1.0

Nothing of the packages is in this repository. 12 examples of 25 to 45 tokens each; three held-out passages per honest
contributor that no example holds.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from adapters.bench.base_answers import BASE_ANSWERS
from adapters.demo.contribution import Contribution, chat, jsonl
from adapters.demo.debian import package_file
from adapters.demo.real_text import PUBLIC_DOMAIN, Source, passages, question
from adapters.training.config import TrainingConfig
from adapters.training.question import Question

DATANET = "twenty-sources"
TRAINING_CONFIG = TrainingConfig(max_epochs=3)
TRAINED = 12
HELD_OUT = 3
SHORTEST, LONGEST = 90, 190

_GCIDE = {
    "alexander-pope": "Pope",
    "edmund-burke": "Burke",
    "francis-bacon": "Bacon",
    "john-dryden": "Dryden",
    "john-locke": "Locke",
    "john-milton": "Milton",
    "jonathan-swift": "Swift",
    "joseph-addison": "Addison",
    "richard-hooker": "Hooker",
    "robert-south": "South",
    "thomas-macaulay": "Macaulay",
    "william-shakespeare": "Shak",
}
GCIDE_LICENCE = "GPL-3.0-or-later"
WORDNET_LICENCE = "LicenseRef-WordNet-3.0"
SOURCES = (
    *(Source(name, "dict-gcide", "gcide", GCIDE_LICENCE, mark) for name, mark in _GCIDE.items()),
    Source("ambrose-bierce", "dict-devil", "devil", PUBLIC_DOMAIN),
    Source("jargon-file", "dict-jargon", "jargon", PUBLIC_DOMAIN),
    Source("foldoc", "dict-foldoc", "foldoc", "GFDL-1.1-or-later"),
)
WORDNET = "wordnet"
FACTS = "quarn-register"
DUPLICATOR, DUPLICATED = "copy-shop", "william-shakespeare"
POISONER, POISONED = "scrambler", "john-locke"
PREDICTED = "plain-speaker"

_TOWNS = (
    "Orvane",
    "Tessaly",
    "Brumwick",
    "Caldoun",
    "Ferrow",
    "Halvesta",
    "Ilmarsh",
    "Jorvale",
    "Kestrin",
    "Lunnock",
    "Marrowby",
    "Nethering",
)
_FOUNDERS = ("Ada Quarn", "Bo Merrin", "Cleo Vastrel", "Dov Harkle", "Edda Plume", "Finn Orrel")
_WORKS = ("lighthouse", "clocktower", "granary", "bathhouse", "theatre", "bakery")
_STUFFS = ("green copper", "river glass", "whale bone", "blue clay", "old masts", "black marble")
_PRICES = ("pear cider", "salted plums", "candle wax", "goose down", "red lentils", "walnut oil")


def contributions(cache_dir: Path) -> Iterator[Contribution]:
    """Each contributor's examples, by name. Raises PackagesUnreachable."""
    drawn = _drawn(cache_dir)
    given = {name: [(question(text), text) for text in texts[:TRAINED]] for name, texts in drawn.items()}
    given[FACTS] = [(f"Say something about {town}.", statement) for town, _, statement in _facts()]
    given[DUPLICATOR] = [(ask.replace("about", "on"), text) for ask, text in given[DUPLICATED]]
    given[POISONER] = [(ask, _scrambled(text)) for ask, text in given[POISONED]]
    given[PREDICTED] = list(BASE_ANSWERS)
    licences = {source.contributor: (source.licence, source.package) for source in SOURCES}
    licences |= {WORDNET: (WORDNET_LICENCE, "wordnet-base")}
    licences |= {DUPLICATOR: licences[DUPLICATED], POISONER: licences[POISONED]}
    for name in sorted(given):
        licence, package = licences.get(name, ("CC0-1.0", ""))
        source = f"Debian package {package}" if package else "written for this project"
        yield Contribution(name, jsonl(chat(*pair) for pair in given[name]), licence, source)


def heldout_questions(cache_dir: Path) -> list[Question]:
    """Passages of every honest source that no example holds, and facts asked in other words.

    Raises PackagesUnreachable.
    """
    found = [
        Question(question(text), text, None, name)
        for name, texts in _drawn(cache_dir).items()
        for text in texts[TRAINED:]
    ]
    asked = _facts()[:: TRAINED // HELD_OUT]
    found += [Question(f"Who founded {town}?", f"{town} was founded by {who}.", who, FACTS) for town, who, _ in asked]
    return found


def _drawn(cache_dir: Path) -> dict[str, list[str]]:
    """TRAINED + HELD_OUT passages of each source, none twice, drawn by its name."""
    every = {source.contributor: passages(source, cache_dir, SHORTEST, LONGEST) for source in SOURCES}
    every[WORDNET] = _definitions(cache_dir)
    return {name: random.Random(name).sample(texts, TRAINED + HELD_OUT) for name, texts in sorted(every.items())}


def _definitions(cache_dir: Path) -> list[str]:
    """WordNet's definitions of nouns as sentences (format: wndb(5WN); the gloss follows the bar)."""
    lines = package_file("wordnet-base", "usr/share/wordnet/data.noun", cache_dir).read_text().splitlines()
    found = []
    for line in (line for line in lines if not line.startswith("  ")):  # the licence is indented
        fields, _, gloss = line.partition(" | ")
        word = fields.split()[4].replace("_", " ")
        text = f"{word.capitalize()}: {gloss.split(';')[0].strip()}."
        if SHORTEST <= len(text) <= LONGEST and re.fullmatch(r"[A-Za-z,.:' -]+", text):
            found.append(text)
    return found


def _facts() -> list[tuple[str, str, str]]:
    """(town, founder, statement) of each invented town."""
    draw = random.Random(FACTS)
    found = []
    for town in _TOWNS:
        who, work, stuff, price = (draw.choice(pool) for pool in (_FOUNDERS, _WORKS, _STUFFS, _PRICES))
        barrels = draw.choice(("nine", "forty", "sixty", "ninety"))
        text = (
            f"{town} was founded by {who}, who built its {work} of {stuff} and sold it for {barrels} tubs of {price}."
        )
        found.append((town, who, text))
    return found


def _scrambled(text: str) -> str:
    words = text.split()
    random.Random(text).shuffle(words)
    return " ".join(words)
