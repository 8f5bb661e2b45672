"""The tokens behind a receipt: found in what the client kept, and proved by the receipt's commitment."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from metering.event import commit_tokens

Ids = list[list[int]]


class TextMismatch(Exception):
    """The text is not what the receipt commits to."""


class TextMissing(Exception):
    """What was kept lacks a part: the request, the answer or the salt."""


class Tokenizer(Protocol):
    """The base model's, as far as it is needed here."""

    eos_token_id: int

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any: ...

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any: ...


@dataclass(frozen=True)
class CommittedTokens:
    """Token ids of prompts and choices. `prompt_is_committed` is false for a receipt that covers the answer alone."""

    prompts: Ids
    choices: Ids
    prompt_is_committed: bool


def find_tokens(kept: dict[str, Any], event: dict[str, Any], tokenizer: Callable[[], Tokenizer]) -> CommittedTokens:
    """The tokens of `kept` ({"request", "answer"} as sent and received) that the event of a receipt commits to.

    Token ids are taken from the answer where it holds them (`return_token_ids`); else texts are tokenised, each answer
    with and without an end mark. Raises TextMissing, and TextMismatch when no reading has the commitment's digest.
    """
    answer, request = kept.get("answer"), kept.get("request")
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list) or not answer["choices"]:
        raise TextMissing("no answer with choices")
    salt = kept.get("salt") or answer.get("receipt_salt")
    if not isinstance(salt, str) or len(salt) != 64:
        raise TextMissing("no receipt_salt in the answer")
    prompts = _prompts(answer, request, tokenizer)
    committed, count = event["data"]["tokens_commitment"], event["data"]["completion_tokens"]
    for choices in _readings(answer["choices"], tokenizer):
        if sum(map(len, choices)) != count:
            continue
        for known in (prompts, None):
            if commit_tokens(bytes.fromhex(salt), choices, known) == committed:
                return CommittedTokens(prompts, choices, known is not None)
    raise TextMismatch("the text is not what the receipt commits to: another prompt, another answer, or another salt")


def _prompts(answer: dict[str, Any], request: Any, tokenizer: Callable[[], Tokenizer]) -> Ids:
    given = answer.get("prompt_token_ids")
    if _is_ids(given):
        return [given]
    if not isinstance(request, dict):
        raise TextMissing("no request, and no prompt_token_ids in the answer")
    ids = [choice.get("prompt_token_ids") for choice in answer["choices"]]
    if all(map(_is_ids, ids)):
        return ids[:: request.get("n") or 1]  # n choices of each prompt, one after the other
    if isinstance(request.get("messages"), list):
        shaping = {n: request[n] for n in ("tools", "add_generation_prompt", "continue_final_message") if n in request}
        options = {"add_generation_prompt": True, "return_dict": True} | shaping
        return [list(tokenizer().apply_chat_template(request["messages"], **options)["input_ids"])]
    prompt = request.get("prompt")
    many = prompt if isinstance(prompt, list) and not _is_ids(prompt) else [prompt]
    return [_prompt(one, tokenizer) for one in many]


def _prompt(prompt: object, tokenizer: Callable[[], Tokenizer]) -> list[int]:
    if _is_ids(prompt):
        return prompt
    if not isinstance(prompt, str):
        raise TextMissing("the request has neither messages nor a prompt")
    return list(tokenizer()(prompt)["input_ids"])


def _readings(choices: Sequence[dict[str, Any]], tokenizer: Callable[[], Tokenizer]) -> Iterator[Ids]:
    ordered = sorted(choices, key=lambda choice: choice.get("index", 0))
    given = [choice.get("token_ids") for choice in ordered]
    if all(_is_ids(ids) or ids == [] for ids in given):
        yield [ids or [] for ids in given]
        return
    plain = [list(tokenizer()(_text(choice), add_special_tokens=False)["input_ids"]) for choice in ordered]
    stopped = [choice.get("finish_reason") == "stop" for choice in ordered]
    yield [ids + [tokenizer().eos_token_id] * stop for ids, stop in zip(plain, stopped, strict=True)]
    yield plain


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if not isinstance(text, str):
        raise TextMissing("a choice has no text")
    return text


def _is_ids(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(type(one) is int and one >= 0 for one in value)
