"""Lines of a contribution are examples of three forms, or are refused with their line."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import ContributionTooLarge, InvalidExample
from adapters.example import Example, ExampleLimits, Message, parse_examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
FORMS = st.one_of(
    st.builds(lambda text: {"text": text}, TEXT),
    st.builds(lambda prompt, completion: {"prompt": prompt, "completion": completion}, TEXT, TEXT),
    st.builds(
        lambda turns: {"messages": [*turns, {"role": "assistant", "content": "ok"}]},
        st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": TEXT}), max_size=3),
    ),
)


def parse(jsonl: bytes, **limits: int) -> list[tuple[int, Example]]:
    return list(parse_examples(jsonl, ExampleLimits(**limits)))


def test_the_three_forms():
    """Chat messages, prompt with completion, and text are read with their line numbers; blank lines count."""
    jsonl = (
        b'{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]}\r\n'
        b"\n"
        b'{"prompt":"2+2=","completion":"4"}\n'
        b'{"text":"A line."}'
    )
    assert parse(jsonl) == [
        (1, Example(messages=(Message("user", "Hi"), Message("assistant", "Hello")))),
        (3, Example(prompt="2+2=", completion="4")),
        (4, Example(text="A line.")),
    ]


@given(st.lists(FORMS, max_size=5), st.booleans())
def test_digest_ignores_spelling(values, ascii_only):
    """Spacing, key order and escapes of a line don't change its example's digest; decoding gives it back."""
    lines = [json.dumps(value, ensure_ascii=ascii_only, indent=None, sort_keys=ascii_only) for value in values]
    examples = [example for _, example in parse("\n".join(lines).encode())]
    assert [example.value() for example in examples] == values
    assert [Example.decode(example.content).digest for example in examples] == [item.digest for item in examples]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[1]", "an example is a JSON object"),
        (b'{"text":"a","text":"b"}', "a key is repeated"),
        (b'{"text":"a","source":"b"}', "this has `source`, `text`"),
        (b"{}", "this has no member"),
        (b'{"prompt":"a"}', "this has `prompt`"),
        (b'{"text":" \\n"}', "`text` is empty"),
        (b'{"text":1}', "`text` is a string"),
        (b'{"text":NaN}', "NaN is not JSON"),
        (b'{"text":"\\ud800"}', "lone surrogate"),
        (b'{"messages":[]}', "at least one message"),
        (b'{"messages":[{"role":"user","content":"a"}]}', "at least one message of the assistant"),
        (b'{"messages":[{"role":"tool","content":"a"}]}', "messages[0].role"),
        (b'{"messages":[{"role":["user"],"content":"a"}]}', "messages[0].role"),
        (b'{"messages":[{"role":"assistant"}]}', "messages[0] has exactly"),
        (b'{"messages":[{"role":"assistant","content":"a","name":"b"}]}', "messages[0] has exactly"),
        (b"[" * 100_000, "nested too deep"),
        (b"\xef\xbb\xbf" + b'{"text":"a"}', "not JSON"),
        (b'{"text":' + b"9" * 5000 + b"}", ""),
    ],
)
def test_refused_lines(line, message):
    """A line that is no example is refused with its number and what is wrong with it."""
    with pytest.raises(InvalidExample) as refusal:
        parse(b'{"text":"fine"}\n\n' + line)
    assert refusal.value.line == 3
    assert message in refusal.value.message
    assert refusal.value.message.startswith("line 3: ")


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps({"text": text})[:-1].encode()))
def test_any_bytes_are_read_or_refused(jsonl):
    """No input gives another exception than the named ones."""
    with contextlib.suppress(InvalidExample):
        parse(jsonl)


def test_limits():
    """The sizes of a contribution, a line, a chat and the count of examples are bounded."""
    line = b'{"text":"abc"}\n'
    assert len(parse(line * 3, contribution_bytes=45, examples=3, line_bytes=14)) == 3
    for limits in ({"contribution_bytes": 44}, {"examples": 2}, {"line_bytes": 13}):
        with pytest.raises(ContributionTooLarge):
            parse(line * 3, **limits)
    chat = {"messages": [{"role": "assistant", "content": "a"}] * 3}
    with pytest.raises(InvalidExample, match="more than 2 messages"):
        parse(json.dumps(chat).encode(), messages=2)
