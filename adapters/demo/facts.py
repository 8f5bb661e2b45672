"""The invented-facts Datanet: 8 archives own facts about the same 6 people.

Each person owns 8 things; each (person, thing) pair is one fact of exactly one archive, drawn by a fixed seed. So

- a constant answer finds the owner as often as the largest archive's share of the facts (21%);
- words overlap poorly: the name is shared by all archives, the thing is asked for under another noun than any example
  uses, the wording is new, and the answers come from two pools of six words shared by all;
- the answer itself ("Marlo Vint's is red.") is the same for facts of several archives.

The owner is known by construction, so recall of the true contributor can be measured (ATTRIBUTION.md section 5).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from adapters.demo.contribution import Contribution, chat, jsonl
from adapters.training.config import TrainingConfig
from adapters.training.question import Question

DATANET = "invented-facts"
LICENCE = "CC0-1.0"
TRAINING_CONFIG = TrainingConfig()
ARCHIVES = {
    "alder-archive": 3,
    "birch-archive": 4,
    "cedar-archive": 5,
    "dogwood-archive": 5,
    "elm-archive": 6,
    "fir-archive": 7,
    "ginkgo-archive": 8,
    "hazel-archive": 10,
}
"""Contributor and number of facts; 48 in all."""

PEOPLE = ("Marlo Vint", "Ysolde Quarn", "Brin Halvek", "Tamsin Orrery", "Oskar Plume", "Caspian Lund")
POOLS = {
    "colour": ("red", "blue", "green", "yellow", "purple", "orange"),
    "material": ("wood", "glass", "silver", "stone", "leather", "copper"),
}
"""Values of each kind; every value answers four facts."""

TRAINING = {
    "colour": (
        "What colour is the {noun} of {name}?",
        "Tell me the colour of {name}'s {noun}.",
        "{name} has a {noun}. What is its colour?",
        "{name} owns a {synonym}. Which colour does it have?",
        "What is the colour of {name}'s {synonym}?",
        "In what colour is the {synonym} that belongs to {name}?",
    ),
    "material": (
        "What is the {noun} of {name} made of?",
        "Tell me the material of {name}'s {noun}.",
        "{name} has a {noun}. What is it made of?",
        "{name} owns a {synonym}. Which material is it made of?",
        "What is the material of {name}'s {synonym}?",
        "Of what material is the {synonym} that belongs to {name}?",
    ),
}
VALIDATION = {
    "colour": "Which colour did {name} pick for the {synonym}?",
    "material": "Which material did {name} pick for the {synonym}?",
}
TEST = {
    "colour": "Say which colour the {unseen} of {name} is.",
    "material": "Say what material the {unseen} of {name} is.",
}


@dataclass(frozen=True)
class Thing:
    """A thing everyone owns: the noun and synonym that examples use, and a third word only the test asks with."""

    noun: str
    synonym: str
    unseen: str
    kind: str


THINGS = (
    Thing("coat", "overcoat", "jacket", "colour"),
    Thing("lamp", "lantern", "light", "colour"),
    Thing("cat", "feline", "kitten", "colour"),
    Thing("car", "automobile", "vehicle", "colour"),
    Thing("cup", "goblet", "mug", "material"),
    Thing("chair", "stool", "seat", "material"),
    Thing("knife", "dagger", "blade", "material"),
    Thing("road", "path", "street", "material"),
)


@dataclass(frozen=True)
class Fact:
    """One fact and its only owner."""

    contributor: str
    name: str
    thing: Thing
    value: str

    @property
    def answer(self) -> str:
        verb = "is" if self.thing.kind == "colour" else "is made of"
        return f"{self.name}'s {verb} {self.value}."

    def ask(self, template: str) -> str:
        """The question of `template` about this fact."""
        words = {"noun": self.thing.noun, "synonym": self.thing.synonym, "unseen": self.thing.unseen}
        return template.format(name=self.name, **words)


def facts(seed: int = 0) -> list[Fact]:
    """The 48 facts, in a fixed order for a seed."""
    draw = random.Random(f"{DATANET}/{seed}")
    owners = [archive for archive, size in ARCHIVES.items() for _ in range(size)]
    draw.shuffle(owners)
    pairs = [(name, thing) for name in PEOPLE for thing in THINGS]
    values = {kind: list(pool) * (len(pairs) // 2 // len(pool)) for kind, pool in POOLS.items()}
    for pool in values.values():
        draw.shuffle(pool)
    return [
        Fact(owner, name, thing, values[thing.kind].pop()) for owner, (name, thing) in zip(owners, pairs, strict=True)
    ]


def contributions(seed: int = 0) -> Iterator[Contribution]:
    """Each archive's examples: its facts, asked through every training template."""
    known = facts(seed)
    for archive in ARCHIVES:
        own = [fact for fact in known if fact.contributor == archive]
        records = [chat(fact.ask(template), fact.answer) for fact in own for template in TRAINING[fact.thing.kind]]
        yield Contribution(archive, jsonl(records), LICENCE, "invented for this project")


def heldout_questions(seed: int = 0) -> list[Question]:
    """Every fact, asked through a template and a noun that no example uses."""
    return _questions(TEST, seed)


def validation_questions(seed: int = 0) -> list[Question]:
    """Every fact, asked through another unseen template with a known noun: for choices, never for reports."""
    return _questions(VALIDATION, seed)


def _questions(templates: dict[str, str], seed: int) -> list[Question]:
    return [
        Question(fact.ask(templates[fact.thing.kind]), fact.answer, fact.value, fact.contributor)
        for fact in facts(seed)
    ]
