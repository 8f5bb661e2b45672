"""Examples: the lines of a contribution.

A line is a JSON object of one of three forms, and nothing else in it:

    {"messages": [{"role": "system" | "user" | "assistant", "content": "..."}, ...]}    at least one from the assistant
    {"prompt": "...", "completion": "..."}
    {"text": "..."}

All strings hold at least one character that is not white space. An example is named by the digest of its canonical
JSON: strings count as they are written, without Unicode normalisation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import digest
from adapters.errors import ContributionTooLarge, InvalidDocument, InvalidExample
from adapters.strict_json import parse_json

ROLES = ("system", "user", "assistant")
FORMS = (frozenset({"messages"}), frozenset({"prompt", "completion"}), frozenset({"text"}))


@dataclass(frozen=True)
class ExampleLimits:
    """Upper bounds of one contribution, in bytes and counts."""

    line_bytes: int = 1 << 20
    contribution_bytes: int = 64 << 20
    examples: int = 100_000
    messages: int = 256


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """Exactly one form is set: `messages`, or `prompt` with `completion`, or `text`."""

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None

    @classmethod
    def of(cls, value: object) -> "Example":
        """The example of a decoded JSON value; ValueError says what is wrong with it."""
        if not isinstance(value, dict):
            raise ValueError("an example is a JSON object")
        if frozenset(value) not in FORMS:
            raise ValueError(
                f"an example has `messages`, or `prompt` and `completion`, or `text`; this has {_keys(value)}"
            )
        if "messages" in value:
            return cls(messages=_messages(value["messages"]))
        if "text" in value:
            return cls(text=_text("text", value["text"]))
        return cls(prompt=_text("prompt", value["prompt"]), completion=_text("completion", value["completion"]))

    @classmethod
    def decode(cls, content: bytes) -> "Example":
        """The example of canonical bytes; ValueError or InvalidDocument when they are no such thing."""
        return cls.of(parse_canonical(content))

    def value(self) -> dict[str, Any]:
        """The JSON value, as in the line it came from."""
        if self.messages is not None:
            return {"messages": [{"role": message.role, "content": message.content} for message in self.messages]}
        if self.text is not None:
            return {"text": self.text}
        return {"prompt": self.prompt, "completion": self.completion}

    @cached_property
    def content(self) -> bytes:
        """Canonical JSON; what the digest names."""
        return canonical_json(self.value())

    @cached_property
    def digest(self) -> str:
        return digest(self.content)


def parse_examples(jsonl: bytes, limits: ExampleLimits | None = None) -> Iterator[tuple[int, Example]]:
    """(1-based line number, example) of each line that is not blank.

    Raises InvalidExample with its line for a line that is no example, and ContributionTooLarge past the limits.
    Lines end in LF or CR LF.
    """
    limits = limits or ExampleLimits()
    if len(jsonl) > limits.contribution_bytes:
        raise ContributionTooLarge(f"a contribution holds at most {limits.contribution_bytes} bytes")
    count = 0
    for number, line in enumerate(jsonl.split(b"\n"), start=1):
        if not line.strip():
            continue
        count += 1
        if count > limits.examples:
            raise ContributionTooLarge(f"a contribution holds at most {limits.examples} examples")
        if len(line) > limits.line_bytes:
            raise ContributionTooLarge(f"line {number} is longer than {limits.line_bytes} bytes")
        yield number, _parse_line(number, line, limits)


def _parse_line(number: int, line: bytes, limits: ExampleLimits) -> Example:
    try:
        value = parse_json(line)
        example = Example.of(value)
        if example.messages is not None and len(example.messages) > limits.messages:
            raise ValueError(f"more than {limits.messages} messages")
        _ = example.content  # lone surrogates surface here
    except (ValueError, InvalidDocument) as error:
        raise InvalidExample(str(error), line=number) from None
    return example


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("`messages` is a list of at least one message")
    messages = []
    for index, item in enumerate(value):
        if not isinstance(item, dict) or set(item) != {"role", "content"}:
            raise ValueError(f"messages[{index}] has exactly `role` and `content`")
        if item["role"] not in ROLES:
            raise ValueError(f"messages[{index}].role is one of {', '.join(ROLES)}")
        messages.append(Message(item["role"], _text(f"messages[{index}].content", item["content"])))
    if all(message.role != "assistant" for message in messages):
        raise ValueError("`messages` needs at least one message of the assistant")
    return tuple(messages)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is a string")
    if not value.strip():
        raise ValueError(f"`{name}` is empty")
    return value


def _keys(value: Mapping[str, object]) -> str:
    return ", ".join(f"`{key[:40]}`" for key in sorted(value)[:6]) or "no member"
