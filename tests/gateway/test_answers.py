"""Stored answers of Idempotency-Keys."""

from pathlib import Path

import pytest

from gateway.answers import Answers, StoredAnswer
from gateway.database import Database
from gateway.errors import InvalidRequest, KeyReused, StillInFlight

PATH, BODY = "/v1/chat/completions", b'{"model":"m"}'
ANSWER = StoredAnswer("req_1", 200, "application/json", b'{"id":"req_1"}')


@pytest.fixture
def answers(database: Database) -> Answers:
    return Answers(database, kept_seconds=60)


def test_the_first_request_takes_the_key_and_the_second_gets_its_answer(answers: Answers) -> None:
    """Byte for byte."""
    assert answers.claim("alice", "k", PATH, BODY, "req_1") is None
    answers.store(ANSWER)
    assert answers.claim("alice", "k", PATH, BODY, "req_2") == ANSWER


def test_a_duplicate_in_flight_is_told_to_wait(answers: Answers) -> None:
    """It is neither run twice nor answered with nothing."""
    answers.claim("alice", "k", PATH, BODY, "req_1")
    with pytest.raises(StillInFlight) as caught:
        answers.claim("alice", "k", PATH, BODY, "req_2")
    assert caught.value.headers()["retry-after"] == "1"


@pytest.mark.parametrize(("path", "body"), [(PATH, b'{"model":"n"}'), ("/v1/completions", BODY)])
@pytest.mark.parametrize("stored", [True, False])
def test_another_body_or_path_is_an_error(answers: Answers, path: str, body: bytes, stored: bool) -> None:
    """Also while the first one is in flight."""
    answers.claim("alice", "k", PATH, BODY, "req_1")
    if stored:
        answers.store(ANSWER)
    with pytest.raises(KeyReused):
        answers.claim("alice", "k", path, body, "req_2")


def test_keys_belong_to_accounts(answers: Answers) -> None:
    """Two tenants may choose the same key."""
    answers.claim("alice", "k", PATH, BODY, "req_1")
    answers.store(ANSWER)
    assert answers.claim("bob", "k", PATH, BODY, "req_2") is None


def test_a_refused_request_gives_the_key_back(answers: Answers) -> None:
    """A retry after 402 or 503 runs."""
    answers.claim("alice", "k", PATH, BODY, "req_1")
    answers.release("req_1")
    assert answers.claim("alice", "k", PATH, b"other", "req_2") is None


def test_release_never_drops_a_stored_answer(answers: Answers) -> None:
    """Recovery releases what has no answer, and only that."""
    answers.claim("alice", "k", PATH, BODY, "req_1")
    answers.store(ANSWER)
    answers.release("req_1")
    assert answers.claim("alice", "k", PATH, BODY, "req_2") == ANSWER


def test_answers_survive_a_restart(tmp_path: Path) -> None:
    """The key is still taken, the answer still there."""
    first = Database(tmp_path / "gateway.db")
    answers = Answers(first, 60)
    answers.claim("alice", "k", PATH, BODY, "req_1")
    answers.store(ANSWER)
    first.close()
    assert Answers(Database(tmp_path / "gateway.db"), 60).claim("alice", "k", PATH, BODY, "req_2") == ANSWER


def test_an_old_answer_is_forgotten(database: Database) -> None:
    """After that the key is new again."""
    answers = Answers(database, kept_seconds=-1)
    answers.claim("alice", "k", PATH, BODY, "req_1")
    answers.store(ANSWER)
    assert answers.claim("alice", "k", PATH, BODY, "req_2") is None


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_a_sane_length(answers: Answers, key: str) -> None:
    """Empty and overlong keys are refused."""
    with pytest.raises(InvalidRequest):
        answers.claim("alice", key, PATH, BODY, "req_1")
