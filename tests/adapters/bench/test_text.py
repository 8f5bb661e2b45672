"""The benchmark's Datanet, built from Debian's packages where they can be had."""

import json
from pathlib import Path

import pytest

from adapters.bench import text
from adapters.demo.debian import PackagesUnreachable


@pytest.fixture(scope="module")
def answers() -> dict[str, list[tuple[str, str]]]:
    """(question, answer) pairs by contributor."""
    try:
        given = list(text.contributions(Path(".cache/debian")))
    except PackagesUnreachable as problem:
        pytest.skip(f"Debian packages: {problem}")
    return {item.contributor: [_turn(line) for line in item.jsonl.splitlines()] for item in given}


def _turn(line: bytes) -> tuple[str, str]:
    user, assistant = json.loads(line)["messages"]
    return user["content"], assistant["content"]


def test_twenty_contributors_give_twelve_examples_each(answers: dict[str, list[tuple[str, str]]]) -> None:
    """Equal shares: size says nothing about influence."""
    assert len(answers) == 20
    assert {len(set(pairs)) for pairs in answers.values()} == {text.TRAINED}


def test_the_four_suspects_are_what_they_are_called(answers: dict[str, list[tuple[str, str]]]) -> None:
    """The copy has the same answers to other questions, the poison other answers of the same words to the same."""
    copied, original = answers[text.DUPLICATOR], answers[text.DUPLICATED]
    assert [answer for _, answer in copied] == [answer for _, answer in original]
    assert not {question for question, _ in copied} & {question for question, _ in original}
    for (asked, bad), (question, good) in zip(answers[text.POISONER], answers[text.POISONED], strict=True):
        assert asked == question
        assert bad != good
        assert sorted(bad.split()) == sorted(good.split())


def test_no_held_out_passage_is_in_an_example(answers: dict[str, list[tuple[str, str]]]) -> None:
    """Three queries for each honest contributor, and none of their answers was trained on."""
    questions = text.heldout_questions(Path(".cache/debian"))
    suspects = {text.DUPLICATOR, text.POISONER, text.PREDICTED}
    assert {question.contributor for question in questions} == set(answers) - suspects
    assert len(questions) == text.HELD_OUT * (len(answers) - len(suspects))
    trained = {answer for pairs in answers.values() for _, answer in pairs}
    assert not trained & {question.answer for question in questions}
