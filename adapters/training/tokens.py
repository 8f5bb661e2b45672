"""From examples to token sequences with supervised positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.example import Example
from adapters.training.errors import ExampleTooLong


@dataclass(frozen=True)
class TokenExample:
    """Token ids of one example; `supervised[i]` says that token i is learnt (predicted at position i - 1).

    `owner` indexes the sorted contributors of the Datanet version.
    """

    owner: int
    ids: tuple[int, ...]
    supervised: tuple[bool, ...]


MAX_EXAMPLE_TOKENS = 1024


def tokenize(example: Example, tokenizer: Any, owner: int, max_tokens: int = MAX_EXAMPLE_TOKENS) -> TokenExample:
    """Tokens as the served model will see them.

    messages: the chat template; what the assistant says and its end mark are supervised. prompt/completion: the
    completion and the end mark. text: all but the first token. Raises ExampleTooLong above `max_tokens`.
    """
    if example.messages is not None:
        messages = [{"role": message.role, "content": message.content} for message in example.messages]
        ids, supervised = _chat(messages, tokenizer)
    elif example.text is not None:
        ids = list(tokenizer(example.text)["input_ids"])
        supervised = [index > 0 for index in range(len(ids))]
    else:
        prompt = list(tokenizer(example.prompt)["input_ids"])
        completion = list(tokenizer(example.completion, add_special_tokens=False)["input_ids"])
        ids = [*prompt, *completion, tokenizer.eos_token_id]
        supervised = [False] * len(prompt) + [True] * (len(completion) + 1)
    if len(ids) > max_tokens:
        raise ExampleTooLong(f"example {example.digest} has {len(ids)} tokens, at most {max_tokens} are trained on")
    return TokenExample(owner, tuple(ids), tuple(supervised))


def chat_prompt(messages: Sequence[dict[str, str]], tokenizer: Any) -> list[int]:
    """Token ids of a conversation up to where the assistant answers."""
    return _template(list(messages), tokenizer, prompt=True)


def _chat(messages: list[dict[str, str]], tokenizer: Any) -> tuple[list[int], list[bool]]:
    ids: list[int] = _template(messages, tokenizer, prompt=False)
    supervised = [False] * len(ids)
    end = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = len(_template(messages[:index], tokenizer, prompt=True))
        end = len(_template(messages[: index + 1], tokenizer, prompt=False))
        while end > start and ids[end - 1] != tokenizer.eos_token_id:
            end -= 1  # what the template writes after the end mark is never generated
        supervised[start:end] = [True] * (end - start)
    return ids[:end], supervised[:end]


def _template(messages: list[dict[str, str]], tokenizer: Any, *, prompt: bool) -> list[int]:
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=True)
    return list(encoded["input_ids"])
