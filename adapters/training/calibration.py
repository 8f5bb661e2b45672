"""Calibration examples: the Datanet's own answers in contexts the adapter was not trained on.

Scores of training tokens are distorted by memorisation (ATTRIBUTION.md section 3), and a Datanet need not come with
held-out text. So each example is shown behind a phrase that no training run saw; its owner is still known.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from adapters.example import Example
from adapters.training.tokens import MAX_EXAMPLE_TOKENS, TokenExample, chat_prompt, tokenize
from adapters.version import VersionExample

PHRASES = ("Quick question. ", "Please tell me: ", "I would like to know. ", "Hello! ")
"""Two for fitting, the others for the fidelity report of a Datanet that brings no questions of its own."""


def recontextualised(
    examples: Sequence[VersionExample],
    contributors: Sequence[str],
    tokenizer: Any,
    phrases: Sequence[str],
    *,
    limit: int,
    seed: int,
) -> list[TokenExample]:
    """At most `limit` examples, drawn by `seed`, each behind one of `phrases` in turn."""
    index = {name: i for i, name in enumerate(contributors)}
    chosen = list(examples)
    random.Random(seed).shuffle(chosen)
    found = []
    for turn, item in enumerate(chosen[:limit]):
        changed = Example.of(_behind(phrases[turn % len(phrases)], item.example.value()))
        tokens = tokenize(changed, tokenizer, index[item.contributor], MAX_EXAMPLE_TOKENS + 16)
        if any(tokens.supervised[1:]):
            found.append(tokens)
    return found


def prompts_behind(
    examples: Sequence[VersionExample], tokenizer: Any, phrases: Sequence[str], *, limit: int, seed: int
) -> list[tuple[str, str, list[int]]]:
    """(contributor, prompt text, prompt token ids) of at most `limit` examples, each prompt behind a phrase.

    Of a text, the first eight tokens are the prompt.
    """
    chosen = list(examples)
    random.Random(seed).shuffle(chosen)
    found = []
    for turn, item in enumerate(chosen[:limit]):
        value = _behind(phrases[turn % len(phrases)], item.example.value())
        if "messages" in value:
            turns = value["messages"]
            before = turns[: next(i for i, message in enumerate(turns) if message["role"] == "assistant")]
            ids = chat_prompt(before, tokenizer)
            text = " ".join(message["content"] for message in before)
        elif "prompt" in value:
            text = value["prompt"]
            ids = list(tokenizer(text)["input_ids"])
        else:
            ids = list(tokenizer(value["text"])["input_ids"])[:8]
            text = tokenizer.decode(ids)
        found.append((item.contributor, text, ids))
    return found


def _behind(phrase: str, value: dict[str, Any]) -> dict[str, Any]:
    """The example with `phrase` before its first user message, its prompt or its text."""
    if "messages" in value:
        messages = [dict(message) for message in value["messages"]]
        user = next((message for message in messages if message["role"] == "user"), messages[0])
        user["content"] = phrase + user["content"]
        return {"messages": messages}
    name = "prompt" if "prompt" in value else "text"
    return {**value, name: phrase + value[name]}
