"""The parameters of a generation request: checked, sorted into passed, labels and fixed, and refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from adapters.composition import MAX_PARTS, weight_ppm
from adapters.errors import BadComposition
from gateway.errors import InvalidJson, InvalidRequest, UnknownParameter, UnsupportedParameter

# Handed to the engine as they are; the engine checks their types and ranges.
SAMPLING = {"frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "seed", "stop", "temperature", "top_p"}
SAMPLING |= {"response_format", "structured_outputs", "top_k", "min_p", "repetition_penalty", "bad_words"}
SAMPLING |= {"min_tokens", "ignore_eos", "stop_token_ids", "allowed_token_ids", "include_stop_str_in_output"}
SAMPLING |= {"skip_special_tokens", "spaces_between_special_tokens", "return_token_ids"}
# They shape the prompt, so the engine's token count of the prompt must see them too.
PROMPT_SHAPING = {"tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs"}
PASSED = {
    "chat": SAMPLING | PROMPT_SHAPING | {"messages", "top_logprobs", "tool_choice", "parallel_tool_calls"},
    "text": SAMPLING | {"prompt"},
}
# Read by the gateway itself.
OWN = {"model", "n", "stream", "stream_options", "max_tokens", "max_completion_tokens", "attribution", "adapters"}
# Accepted and kept from the engine: by OpenAI's definition they do not change the answer.
LABELS = {"user", "metadata", "safety_identifier", "prompt_cache_key"}
# Accepted at these values only, and then without effect; anything else would change metering, tenancy or the answer.
FIXED: dict[str, tuple] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "store": (None, False),
    "suffix": (None, ""),
    "modalities": (None, ["text"]),
    "service_tier": (None, "auto", "default"),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "functions": (None,),
    "function_call": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None, "medium"),
    "use_beam_search": (False,),
    "prompt_logprobs": (None,),
}
TEXT_PARTS = ("text", "refusal")
COMPLETION_DEFAULT_TOKENS = 16  # OpenAI's default of /v1/completions


@dataclass(frozen=True)
class Generation:
    """A checked request. `passed` holds what goes to the engine, without model, n, stream and max_tokens."""

    kind: str  # "chat" or "text"
    model: str
    passed: dict[str, Any]
    prompts: int
    n: int
    max_tokens: int | None
    stream: bool
    include_usage: bool
    token_scores: bool
    adapters: Mapping[str, int] = field(default_factory=dict)  # names to weights in ppm; empty: `model` alone serves

    @property
    def choices(self) -> int:
        return self.n * self.prompts

    @property
    def text_prompts(self) -> list[str | list[int]]:
        """The prompts of a text completion: texts, or lists of token ids."""
        prompt = self.passed["prompt"]
        return prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request body. Raises InvalidJson."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise InvalidJson("The body of the request must be a JSON object.")
    return body


def parse(kind: str, raw: bytes, max_choices: int) -> Generation:
    """Checks a request body of kind "chat" or "text". Raises InvalidJson, InvalidRequest and its children."""
    body = parse_json(raw)
    _refuse_unknown(kind, body)
    stream = _read(body, "stream", bool, False)
    options = _read(body, "stream_options", dict, None)
    if options is not None and not stream:
        raise InvalidRequest("stream_options is only allowed when stream is true.", param="stream_options")
    n = _count(body, "n", 1)
    prompts = _messages(body) if kind == "chat" else _prompts(body)
    if n * prompts > max_choices:
        raise InvalidRequest(f"at most {max_choices} choices are answered at once, {n * prompts} asked", param="n")
    return Generation(
        kind=kind,
        model=_model(body),
        passed={name: value for name, value in body.items() if name in PASSED[kind] and value is not None},
        prompts=prompts,
        n=n,
        max_tokens=_limit(kind, body),
        stream=stream,
        include_usage=_read(options or {}, "include_usage", bool, False),
        token_scores=_attribution(body),
        adapters=_adapters(body),
    )


def _refuse_unknown(kind: str, body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name in FIXED:
            if value not in FIXED[name]:
                raise UnsupportedParameter(f"Unsupported value for '{name}'.", param=name)
        elif name not in PASSED[kind] and name not in OWN and name not in LABELS:
            raise UnknownParameter(f"Unrecognized request argument supplied: {name}", param=name)


def _model(body: dict[str, Any]) -> str:
    model = _read(body, "model", str, None)
    if not model:
        raise InvalidRequest("you must provide a model parameter", param="model", code="missing_required_parameter")
    return model


def _limit(kind: str, body: dict[str, Any]) -> int | None:
    default = COMPLETION_DEFAULT_TOKENS if kind == "text" else None
    limit = _count(body, "max_tokens", default)
    return _count(body, "max_completion_tokens", limit)


def _attribution(body: dict[str, Any]) -> bool:
    value = body.get("attribution")
    if value not in (None, "tokens"):
        raise InvalidRequest("attribution must be 'tokens' or absent", param="attribution")
    return value == "tokens"


def _adapters(body: dict[str, Any]) -> dict[str, int]:
    weights = _read(body, "adapters", dict, None)
    if weights is None:
        return {}
    if not 2 <= len(weights) <= MAX_PARTS:
        message = f"adapters must be an object of 2 to {MAX_PARTS} names and weights"
        raise InvalidRequest(message, param="adapters", code=BadComposition.code)
    return {name: _weight(name, value) for name, value in weights.items()}


def _weight(name: str, value: object) -> int:
    """In ppm. What binary floats make of 0.1 + 0.2 is 0.3: their noise begins at the 14th decimal."""
    number = type(value).__name__
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = repr(round(value, 12))
    try:
        return weight_ppm(number)
    except BadComposition as error:
        raise InvalidRequest(error.message, param=f"adapters.{name}", code=error.code) from None


def _messages(body: dict[str, Any]) -> int:
    """Checks that messages hold text only (another part could make the engine fetch a URL); a chat is one prompt."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages must be a list with at least one message", param="messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"{where} must be an object with a role", param=where)
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS:
                    raise UnsupportedParameter("only text content is served", param=f"{where}.content")
        elif content is not None and not isinstance(content, str):
            raise InvalidRequest("content must be text or a list of text parts", param=f"{where}.content")
    return 1


def _prompts(body: dict[str, Any]) -> int:
    """The number of prompts: a string or a list of token ids is one, a list of either is many."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) or _is_token_ids(prompt):
        return 1
    if (
        isinstance(prompt, list)
        and prompt
        and (all(isinstance(p, str) for p in prompt) or all(map(_is_token_ids, prompt)))
    ):
        return len(prompt)
    raise InvalidRequest("prompt must be a string, a list of token ids, or a list of either", param="prompt")


def _is_token_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)


def _count(body: dict[str, Any], name: str, default: int | None) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise InvalidRequest(f"'{name}' must be an integer of at least 1, got {value!r}", param=name)
    return value


def _read(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise InvalidRequest(f"'{name}' must be a {kind.__name__}, got {type(value).__name__}", param=name)
    return value
