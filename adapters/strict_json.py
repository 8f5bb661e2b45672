"""JSON as RFC 8259 has it: UTF-8, no key twice, no NaN or Infinity; what others send us is read with nothing else."""

import json
from typing import Any

import orjson

SHALLOW_BRACKETS = 500


def refuse_deep(content: bytes) -> None:
    """Raises ValueError for nesting that would overflow the C stack of `json`, whatever Python's recursion limit.

    Some libraries raise that limit when they are imported, and `json` then crashes where it should raise. Few brackets
    cannot nest deep; where there are many, orjson, whose own limit is 1024, reads the content first.
    """
    if content.count(b"[") + content.count(b"{") > SHALLOW_BRACKETS:
        try:
            orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"not JSON, or nested too deep: {error}") from None


def parse_json(content: bytes) -> Any:
    """The value; ValueError says what is wrong, also for nesting that would exhaust the stack."""
    refuse_deep(content)
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:  # orjson's limit may lie above the interpreter's
        raise ValueError("nested too deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
