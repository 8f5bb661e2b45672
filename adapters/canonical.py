"""Canonical JSON: one byte string per value, so that its sha-256 names the value.

RFC 8785 (JCS) restricted to objects, arrays, strings, booleans, null and integers -2^63 <= n < 2^63.
Keys are sorted by UTF-16 code units, strings are raw UTF-8 with the short escapes of RFC 8785 section 3.2.2.2.
"""

import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from adapters.errors import InvalidDocument
from adapters.strict_json import refuse_deep

MAX_DEPTH = 32


def canonical_json(value: object) -> bytes:
    """The canonical bytes of `value`.

    Raises InvalidDocument for floats, other types, integers out of range, keys that are not strings, lone surrogates,
    and nesting deeper than 32.
    """
    parts: list[str] = []
    _write(value, parts, MAX_DEPTH)
    try:
        return "".join(parts).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidDocument("a string holds a lone surrogate, which UTF-8 cannot carry") from None


def parse_canonical(content: bytes) -> Any:
    """The value of canonical bytes; InvalidDocument unless `canonical_json` of it gives the same bytes back."""
    try:
        refuse_deep(content)
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"not JSON: {error}") from None
    if canonical_json(value) != content:
        raise InvalidDocument("JSON that is not in canonical form (key order, spacing, escapes or a repeated key)")
    return value


def _write(value: object, parts: list[str], depth: int) -> None:
    if depth == 0:
        raise InvalidDocument(f"nested deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool):
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        parts.append(encode_basestring(value))
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidDocument(
                f"integer out of range: {value:.6e}" if abs(value) < 10**300 else "integer out of range"
            )
        parts.append(str(value))
    elif isinstance(value, dict | Mapping):
        _write_object(value, parts, depth)
    elif isinstance(value, list | tuple):
        parts.append("[")
        for index, item in enumerate(value):
            if index:
                parts.append(",")
            _write(item, parts, depth - 1)
        parts.append("]")
    else:
        raise InvalidDocument(f"canonical JSON has no {type(value).__name__}")


def _write_object(value: Mapping[Any, object], parts: list[str], depth: int) -> None:
    for key in value:
        if not isinstance(key, str):
            raise InvalidDocument(f"an object's key must be a string, not {type(key).__name__}")
    parts.append("{")
    for index, key in enumerate(sorted(value, key=_utf16)):
        parts.append("," if index else "")
        parts.append(encode_basestring(key))
        parts.append(":")
        _write(value[key], parts, depth - 1)
    parts.append("}")


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")
