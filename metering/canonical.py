"""Canonical JSON: the bytes that are hashed, signed and compared.

RFC 8785 restricted to objects, arrays, strings, booleans, null and integers in [-2^63, 2^63-1]. Floats are refused, so
number formatting never matters; strings keep the code points they came with (no normalisation).
"""

from __future__ import annotations

import hashlib
import json
import re
from json.encoder import encode_basestring
from typing import Any

import orjson

from metering.errors import CanonicalError

INT_MIN = -(2**63)
INT_MAX = 2**63 - 1
DEPTH_MAX = 64
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def canonical_bytes(value: Any) -> bytes:
    """The one serialisation of `value`: no white space, keys sorted by UTF-16 code units, strict UTF-8.

    Raises CanonicalError for floats, integers out of range, keys that are not strings, lone surrogates, other types,
    and nesting deeper than 64.
    """
    try:
        if _check(value, DEPTH_MAX):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return _write(value).encode("utf-8")
    except (UnicodeEncodeError, orjson.JSONEncodeError) as error:
        raise CanonicalError(f"not strict UTF-8: {error}") from error


def parse_canonical(data: bytes) -> Any:
    """The value whose canonical bytes are exactly `data`; CanonicalError for other bytes (duplicate keys included)."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise CanonicalError(f"not JSON: {error}") from error
    if canonical_bytes(value) != data:
        raise CanonicalError("not canonical: the bytes differ from the canonical serialisation of their value")
    return value


def parse_strict(data: bytes) -> Any:
    """The value of JSON in any layout (RFC 8259), if it has a canonical form; CanonicalError for a repeated key too."""
    try:
        value = orjson.loads(data)
        if canonical_bytes(value) != data:  # which bounds the depth that `json` recurses into
            json.loads(data, object_pairs_hook=_members)
    except ValueError as error:
        raise CanonicalError(f"not JSON: {error}") from error
    return value


def digest(data: bytes) -> str:
    """`sha256:` + 64 hex digits of the SHA-256 of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(value: object) -> bool:
    return isinstance(value, str) and DIGEST.match(value) is not None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """orjson keeps the last of repeated keys in silence."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CanonicalError("a key is repeated")
    return members


def _check(value: Any, depth: int) -> bool:
    """Refuse what is outside the subset; True when every key is ASCII, so that code point order is UTF-16 order."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise CanonicalError(f"integer {value} is outside 64 bits")
        return True
    if depth == 0:
        raise CanonicalError(f"nested deeper than {DEPTH_MAX}")
    if kind is dict:
        ascii_keys = True
        for key, item in value.items():
            if type(key) is not str:
                raise CanonicalError(f"key {key!r} is not a string")
            if type(item) is not str:  # most members are strings; the rest need a look inside
                ascii_keys = _check(item, depth - 1) and ascii_keys
            ascii_keys = ascii_keys and key.isascii()
        return ascii_keys
    if kind is list or kind is tuple:
        return all([_check(item, depth - 1) for item in value])  # a list: every item must be checked
    raise CanonicalError(f"{kind.__name__} has no canonical form")


def _write(value: Any) -> str:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{encode_basestring(key)}:{_write(value[key])}" for key in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_write, value)) + "]"
    if isinstance(value, str):
        return encode_basestring(value)
    return str(value) if type(value) is int else {None: "null", True: "true", False: "false"}[value]
