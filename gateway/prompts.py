"""Counts the tokens of a prompt before the engine sees it, with the base model's own tokenizer and chat template.

A call to the engine would wait behind the tokens it is sending. The count only sizes the hold and the room for the
completion; what is billed is the engine's. Plain requests are counted here, once a few were counted as the engine does:
it may have been started with another template. All others are the engine's to count.
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from gateway.parameters import PROMPT_SHAPING, Generation, parse
from gateway.upstream import EngineClient

log = logging.getLogger(__name__)
ROLES = {"system", "user", "assistant"}
ODD_TEXT = " caf\u00e9 \u6f22\u5b57 \U0001f642\r\n\t<|im_end|>  a1b2 </s>\n\n"
PROBES = (
    ("text", {"prompt": "Once upon a time"}),
    ("text", {"prompt": ODD_TEXT}),
    ("chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    (
        "chat",
        {
            "messages": [
                {"role": "system", "content": " Be brief. "},
                {"role": "user", "content": ODD_TEXT},
                {"role": "assistant", "content": ""},
                {"role": "user", "content": "{{ 1 }}\n"},
            ]
        },
    ),
)


class PromptCounter:
    """Of one base model. `count` may be called from any thread."""

    def __init__(self, base: Path, base_name: str) -> None:
        self._base_name = base_name
        self._tokenizer = _tokenizer(base)
        self._special, self._template = _template(base)
        self._agrees: bool | None = None

    def count(self, generation: Generation) -> list[int] | None:
        """Tokens of each prompt, or None where the engine has to be asked: tools, parts, other roles or templates."""
        if generation.kind == "chat":
            prompt = self._render(generation)
            return None if prompt is None else self._tokens(prompt, special=False)
        counts = [
            [len(prompt)] if isinstance(prompt, list) else self._tokens(prompt, special=True)
            for prompt in generation.text_prompts
        ]
        return None if None in counts else [one for count in counts if count for one in count]

    async def agrees(self, engine: EngineClient) -> bool:
        """Whether the engine counts as we do; asked once. Raises EngineUnavailable."""
        if self._agrees is None:
            probes = [parse(kind, json.dumps({"model": self._base_name, **body}).encode(), 1) for kind, body in PROBES]
            ours = [self.count(probe) for probe in probes]
            engines = [await engine.count_prompts(self._base_name, probe) for probe in probes]
            self._agrees = ours == engines
            if not self._agrees:
                log.warning("prompts are counted by the engine: %s of ours are %s of its own", ours, engines)
        return self._agrees

    @property
    def agreed(self) -> bool | None:
        """What `agrees` found; None before it was asked."""
        return self._agrees

    def _tokens(self, prompt: str, *, special: bool) -> list[int] | None:
        return None if self._tokenizer is None else [len(self._tokenizer.encode(prompt, add_special_tokens=special))]

    def _render(self, generation: Generation) -> str | None:
        messages = generation.passed["messages"]
        if self._template is None or PROMPT_SHAPING & generation.passed.keys() or not all(map(_is_plain, messages)):
            return None
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._special
            )
        except jinja2.TemplateError:
            return None  # the engine says what is wrong


def _is_plain(message: Mapping[str, Any]) -> bool:
    return message.keys() == {"role", "content"} and message["role"] in ROLES and isinstance(message["content"], str)


def _tokenizer(base: Path) -> Tokenizer | None:
    try:
        tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    except Exception:  # the library raises nothing narrower
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _template(base: Path) -> tuple[dict[str, str], jinja2.Template | None]:
    """The special tokens that a template may name, and the template in the dialect of transformers; None without."""
    try:
        config = json.loads((base / "tokenizer_config.json").read_text())
    except (OSError, ValueError):
        return {}, None
    special = {name: _text(value) for name, value in config.items() if name.endswith("_token") and _text(value)}
    file = base / "chat_template.jinja"
    source = file.read_text() if file.exists() else config.get("chat_template")
    if not isinstance(source, str):
        return special, None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        return special, environment.from_string(source)
    except jinja2.TemplateError:
        return special, None


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
