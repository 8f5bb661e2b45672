"""JSON as RFC 8259 has it: UTF-8, no key twice, no NaN or Infinity; what others send us is read with nothing else."""

import json
from typing import Any


def parse_json(content: bytes) -> Any:
    """The value; ValueError says what is wrong, also for nesting that would exhaust the stack."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
