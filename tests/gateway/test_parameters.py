"""What a generation request may say."""

from typing import Any

import orjson
import pytest

from gateway.errors import InvalidJson, InvalidRequest, UnknownParameter, UnsupportedParameter
from gateway.parameters import Generation, parse

HI = [{"role": "user", "content": "hi"}]


def chat(**members: Any) -> Generation:
    return parse("chat", orjson.dumps({"model": "m", "messages": HI, **members}), 16)


def text(**members: Any) -> Generation:
    return parse("text", orjson.dumps({"model": "m", "prompt": "hi", **members}), 16)


def test_known_parameters_pass_and_ours_stay() -> None:
    """The engine sees sampling parameters, not our own, not labels."""
    generation = chat(temperature=0.5, attribution="tokens", user="u", n=2, max_completion_tokens=7, stop=None)
    assert generation.passed == {"messages": HI, "temperature": 0.5}
    assert (generation.n, generation.max_tokens, generation.token_scores) == (2, 7, True)


def test_defaults_are_openais() -> None:
    """Completions stop after 16 tokens; a chat after what the gateway allows."""
    assert text().max_tokens == 16
    assert chat().max_tokens is None
    assert not chat().stream


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model": NaN}'])
def test_bad_json_is_named(raw: bytes) -> None:
    """Only an object passes."""
    with pytest.raises(InvalidJson):
        parse("chat", raw, 16)


@pytest.mark.parametrize(
    "name",
    [
        "priority",
        "request_id",
        "kv_transfer_params",
        "lora_request",
        "cache_salt",
        "chat_template",
        "vllm_xargs",
        "foo",
    ],
)
def test_the_engines_back_doors_are_closed(name: str) -> None:
    """What could break metering or tenancy is unknown here, by name."""
    with pytest.raises(UnknownParameter) as caught:
        chat(**{name: 1})
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("name", "value"),
    [("echo", True), ("best_of", 2), ("use_beam_search", True), ("prompt_logprobs", 1), ("store", True)],
)
def test_what_is_not_served_is_refused_and_not_ignored(name: str, value: object) -> None:
    """The harmless value of the same parameter passes."""
    with pytest.raises(UnsupportedParameter):
        text(**{name: value})


def test_harmless_values_pass_without_reaching_the_engine() -> None:
    """An SDK that sends defaults is served."""
    assert text(echo=False, best_of=1, suffix=None).passed == {"prompt": "hi"}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"attribution": "all"}, "attribution"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ],
)
def test_a_bad_value_names_its_parameter(members: dict, param: str) -> None:
    """The error's `param` is what the client must change."""
    with pytest.raises(InvalidRequest) as caught:
        chat(**members)
    assert caught.value.param == param


def test_only_text_is_accepted_as_content() -> None:
    """An image part could make the engine fetch a URL."""
    parts = [{"type": "text", "text": "hi"}]
    assert chat(messages=[{"role": "user", "content": parts}]).passed["messages"][0]["content"] == parts
    with pytest.raises(UnsupportedParameter):
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}])


@pytest.mark.parametrize(("prompt", "prompts"), [("a", 1), ([1, 2], 1), (["a", "b"], 2), ([[1], [2, 3], [4]], 3)])
def test_prompts_are_counted(prompt: object, prompts: int) -> None:
    """Choices are n for each prompt."""
    assert text(prompt=prompt, n=2).choices == 2 * prompts


@pytest.mark.parametrize("prompt", [None, [], [[]], ["a", 1], [True], [-1], {}, 7])
def test_a_prompt_of_another_kind_is_refused(prompt: object) -> None:
    """Mixed, empty and negative lists are no prompts."""
    with pytest.raises(InvalidRequest):
        text(prompt=prompt)


def test_weights_of_adapters_are_whole_millionths() -> None:
    """Names to ppm, exactly, without the noise of binary floats; absent and null are none."""
    assert text(adapters={"a/b": 0.1 + 0.2, "c/d": 1 - 0.9}).adapters == {"a/b": 300_000, "c/d": 100_000}
    assert text(adapters={"a/b": 0.7, "c/d:v1": 1, "e/f": 0.000001}).adapters == {
        "a/b": 700_000,
        "c/d:v1": 1_000_000,
        "e/f": 1,
    }
    assert chat().adapters == chat(adapters=None).adapters == {}


@pytest.mark.parametrize("weight", [0, -0.5, 100.000001, 1e308, 0.1234567, True, "0.7", None, [1], {}])
def test_a_weight_that_is_none_is_named(weight: Any) -> None:
    """More than 0, at most 100, at most six decimals, and a number."""
    with pytest.raises(InvalidRequest) as caught:
        chat(adapters={"a/b": 0.7, "c/d": weight})
    assert (caught.value.param, caught.value.code) == ("adapters.c/d", "bad_composition")


@pytest.mark.parametrize("adapters", [{}, {"a/b": 1}, {f"a/{n}": 1 for n in range(17)}])
def test_too_few_and_too_many_adapters_are_refused(adapters: dict) -> None:
    """2 to 16."""
    with pytest.raises(InvalidRequest) as caught:
        chat(adapters=adapters)
    assert (caught.value.param, caught.value.code) == ("adapters", "bad_composition")
