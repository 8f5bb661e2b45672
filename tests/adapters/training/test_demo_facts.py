"""The invented facts are what their page says they are."""

import json
from collections import Counter

from adapters.demo import facts


def lines() -> list[tuple[str, str, str]]:
    """(contributor, question, answer) of every example."""
    found = []
    for contribution in facts.contributions():
        for line in contribution.jsonl.decode().splitlines():
            question, answer = json.loads(line)["messages"]
            found.append((contribution.contributor, question["content"], answer["content"]))
    return found


def test_every_fact_has_one_owner_and_sizes_differ() -> None:
    """48 facts, one for each person and thing; archives own 3 to 10 of them."""
    known = facts.facts()
    assert len({(fact.name, fact.thing.noun) for fact in known}) == len(known) == 48
    assert Counter(fact.contributor for fact in known) == Counter(facts.ARCHIVES)


def test_people_things_and_answers_are_shared() -> None:
    """No person, thing or value belongs to one archive alone."""
    for attribute in ("name", "value", "thing"):
        owners: dict[object, set[str]] = {}
        for fact in facts.facts():
            owners.setdefault(getattr(fact, attribute), set()).add(fact.contributor)
        assert all(len(held) >= 2 for held in owners.values()), attribute


def test_test_questions_use_no_noun_and_no_question_of_the_examples() -> None:
    """The unseen noun of each thing occurs in no example, and no test or validation question is an example's."""
    text = " ".join(f"{question} {answer}" for _, question, answer in lines()).lower()
    words = set(text.replace("?", " ").replace(".", " ").replace("'s", " ").split())
    assert not words & {thing.unseen for thing in facts.THINGS}
    asked = {question for _, question, _ in lines()}
    held_out = facts.heldout_questions() + facts.validation_questions()
    assert not asked & {question.prompt for question in held_out}


def test_examples_are_the_same_every_time_and_never_repeat() -> None:
    """Two builds give the same bytes, and no line occurs twice, so no contribution is refused as a duplicate."""
    assert [c.jsonl for c in facts.contributions()] == [c.jsonl for c in facts.contributions()]
    assert len({(question, answer) for _, question, answer in lines()}) == len(lines()) == 288
