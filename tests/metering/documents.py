"""Documents that are almost right: a sound one with a part replaced, dropped or added, and its bytes damaged."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of every part inside a JSON value."""
    inside = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [found for key, part in inside for found in ((*path, key), *places(part, (*path, key)))]


@st.composite
def almost(draw: st.DrawFn, sound: Any) -> Any:
    """`sound` with one to three parts changed."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        found = places(value)
        if not found:
            break
        *path, last = draw(st.sampled_from(found))
        part = value
        for key in path:
            part = part[key]
        action = draw(st.sampled_from(("replace", "drop", "swap")))
        if action == "replace":
            part[last] = draw(ANYTHING)
        elif action == "drop":
            del part[last]
        else:
            *other, end = draw(st.sampled_from(found))
            source = value
            try:
                for key in (*other, end):
                    source = source[key]
            except (KeyError, IndexError, TypeError):
                continue
            part[last] = copy.deepcopy(source)
    return value


@st.composite
def almost_bytes(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with a part of its JSON changed, or with bytes overwritten, cut out or put in."""
    if draw(st.booleans()):
        value = draw(almost(json.loads(sound)))
        return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=draw(st.booleans())).encode(
            "utf-8", "surrogatepass"
        )
    return draw(damaged(sound))


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with a run of bytes replaced by others, maybe more or fewer."""
    start = draw(st.integers(0, len(sound)))
    end = draw(st.integers(start, min(len(sound), start + 40)))
    return sound[:start] + draw(st.binary(max_size=40)) + sound[end:]
