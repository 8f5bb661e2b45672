"""Whoever holds prompt and answer can show the tokens that a receipt commits to; anything else is refused."""

from typing import Any

import pytest

from gateway.audit.tokens import TextMismatch, TextMissing, find_tokens
from metering.event import commit_tokens

SALT = "5a" * 32
END = 99


class Letters:
    """A tokenizer of one token per character."""

    eos_token_id = END

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        return {"input_ids": ([1] if add_special_tokens else []) + [ord(letter) for letter in text]}

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        assert options["add_generation_prompt"]
        return {"input_ids": [2, *(ord(letter) for message in messages for letter in message["content"]), 3]}


def event(choices: list[list[int]], prompts: list[list[int]] | None) -> dict[str, Any]:
    commitment = commit_tokens(bytes.fromhex(SALT), choices, prompts)
    return {"data": {"tokens_commitment": commitment, "completion_tokens": sum(map(len, choices))}}


def kept(text: str = "yes", reason: str = "stop", **request: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": reason}
    asked = request or {"messages": [{"role": "user", "content": "ok?"}]}
    return {"request": asked, "answer": {"choices": [choice], "receipt_salt": SALT}}


YES = [ord(letter) for letter in "yes"]
CHAT = [2, *(ord(letter) for letter in "ok?"), 3]


@pytest.mark.parametrize(("reason", "end"), [("stop", [END]), ("length", []), ("stop", [])])
def test_text_is_read_with_and_without_an_end_mark(reason: str, end: list[int]) -> None:
    """An answer that stopped may have emitted its end mark, or met a stop string."""
    found = find_tokens(kept(reason=reason), event([YES + end], [CHAT]), Letters)
    assert (found.prompts, found.choices, found.prompt_is_committed) == ([CHAT], [YES + end], True)


def test_token_ids_in_the_answer_need_no_tokenizer() -> None:
    """`return_token_ids` makes the kept answer self-contained, whatever its text says."""
    answer = {
        "prompt_token_ids": [7, 8],
        "receipt_salt": SALT,
        "choices": [{"index": 1, "token_ids": [4]}, {"index": 0, "token_ids": [5, 6]}],
    }
    found = find_tokens({"answer": answer}, event([[5, 6], [4]], [[7, 8]]), lambda: pytest.fail("tokenised"))
    assert (found.prompts, found.choices) == ([[7, 8]], [[5, 6], [4]])


def test_several_prompts_each_with_their_choices() -> None:
    """Completions of two prompts, two choices each: prompts are named once."""
    choices = [{"index": i, "token_ids": [i], "prompt_token_ids": [9, i // 2]} for i in range(4)]
    document = {"request": {"n": 2, "prompt": ["a", "b"]}, "answer": {"choices": choices, "receipt_salt": SALT}}
    found = find_tokens(document, event([[0], [1], [2], [3]], [[9, 0], [9, 1]]), Letters)
    assert found.prompts == [[9, 0], [9, 1]]
    plain = kept(prompt=["a", "b"])
    plain["answer"]["choices"] = [{"index": i, "text": "yes", "finish_reason": "length"} for i in range(2)]
    assert find_tokens(plain, event([YES, YES], [[1, 97], [1, 98]]), Letters).prompts == [[1, 97], [1, 98]]


def test_a_receipt_of_the_answer_alone_says_so() -> None:
    """An event that recovery made does not know the prompt: its tokens are found, the prompt is anyone's word."""
    assert not find_tokens(kept(), event([[*YES, END]], None), Letters).prompt_is_committed


@pytest.mark.parametrize(
    "changed",
    [
        kept("yet"),
        kept("yes!"),
        kept(messages=[{"role": "user", "content": "ok!"}]),
        {**kept(), "salt": "00" * 32},
    ],
)
def test_a_changed_text_fails_the_commitment(changed: dict[str, Any]) -> None:
    """Another answer, prompt or salt has another digest."""
    with pytest.raises(TextMismatch):
        find_tokens(changed, event([[*YES, END]], [CHAT]), Letters)


@pytest.mark.parametrize(
    "lacking",
    [
        {},
        {"answer": {"choices": []}},
        {"answer": {"choices": [{"text": "yes"}]}},
        {"answer": kept()["answer"]},
        {"request": {"prompt": 7}, "answer": kept()["answer"]},
        {"request": {"prompt": "a"}, "answer": {"choices": [{"index": 0}], "receipt_salt": SALT}},
    ],
)
def test_what_was_not_kept_is_named(lacking: dict[str, Any]) -> None:
    """No answer, no choices, no salt, no request, no prompt, no text: TextMissing."""
    with pytest.raises(TextMissing):
        find_tokens(lacking, event([YES], [CHAT]), Letters)
