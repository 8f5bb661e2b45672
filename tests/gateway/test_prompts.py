"""Prompts are counted by the gateway as the engine counts them, or left to the engine."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.parameters import Generation, parse
from gateway.prompts import PROBES, PromptCounter
from gateway.upstream import EngineClient
from tests.gateway.stack import Stack, demo_base

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def generation(kind: str, **body: Any) -> Generation:
    return parse(kind, orjson.dumps({"model": "m", **body}), 16)


def chat(content: Any, **body: Any) -> Generation:
    return generation("chat", messages=[{"role": "user", "content": content}], **body)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The demo base's tokenizer and template, to be changed."""
    for name in TOKENIZER:
        shutil.copy(demo_base() / name, tmp_path / name)
    return tmp_path


@pytest.fixture
async def engine(stack: Stack) -> AsyncIterator[EngineClient]:
    client = EngineClient(stack.data / "engine" / "engine.sock", 5, 60)
    yield client
    await client.close()


@pytest.mark.engine
async def test_the_engine_counts_as_we_do(stack: Stack, engine: EngineClient) -> None:
    """The probes agree, and so do the prompts of several texts and of token ids."""
    counter = PromptCounter(demo_base(), stack.model)
    assert await counter.agrees(engine)
    assert len(PROBES) >= 4
    for asked in (
        generation("text", prompt=["one", "and two", "\n\n\u00fc 3"]),
        generation("text", prompt=[[1, 2, 3], [4]]),
        generation("text", prompt=[5, 6]),
        chat("What is the capital of France? " * 40),
    ):
        assert counter.count(asked) == await engine.count_prompts(stack.model, asked)


@pytest.mark.engine
async def test_another_template_than_the_engines_is_noticed(stack: Stack, engine: EngineClient, copied: Path) -> None:
    """Then every prompt is the engine's to count."""
    template = copied / "chat_template.jinja"
    template.write_text(template.read_text() + "one more")
    counter = PromptCounter(copied, stack.model)
    assert counter.count(chat("Hi")) is not None
    assert not await counter.agrees(engine)
    assert counter.agreed is False


@pytest.mark.parametrize(
    "asked",
    [
        chat([{"type": "text", "text": "parts"}]),
        chat("tools", tools=[TOOL]),
        chat("continued", add_generation_prompt=False),
        generation("chat", messages=[{"role": "tool", "content": "x"}]),
        generation("chat", messages=[{"role": "user", "content": "x", "name": "ada"}]),
    ],
)
def test_what_a_template_may_read_differently_is_left_to_the_engine(asked: Generation) -> None:
    """Tools, parts, names and other roles: the engine prepares them before its template does."""
    assert PromptCounter(demo_base(), "m").count(asked) is None


@pytest.mark.parametrize("spoil", [{"tokenizer.json": "{}"}, {"chat_template.jinja": "{% nonsense"}])
def test_a_base_whose_tokenizer_cannot_be_read_is_left_to_the_engine(copied: Path, spoil: dict[str, str]) -> None:
    """A gateway serves bases whose files only the engine understands."""
    for name, content in spoil.items():
        (copied / name).write_text(content)
    assert PromptCounter(copied, "m").count(chat("Hi")) is None
