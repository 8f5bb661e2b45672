"""Prompts that no prefix cache has seen: random common words, reproducible from a seed."""

import random

WORDS = (  # noqa: SIM905 - easier to read than 94 quoted words
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason"
).split()


def prompt(rng: random.Random, words: int) -> str:
    """`words` random words and a request; about 1.1 tokens a word."""
    return "Write a short text about: " + " ".join(rng.choices(WORDS, k=words)) + "."
