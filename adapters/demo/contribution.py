"""What a demo Datanet yields: one contributor's JSONL bytes under one licence, ready to be posted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contribution:
    """`jsonl` holds one example a line; `licence` is an SPDX identifier; `source` says where the text comes from."""

    contributor: str
    jsonl: bytes
    licence: str
    source: str


def jsonl(records: Iterable[dict[str, Any]]) -> bytes:
    """The records as JSON lines, keys sorted, UTF-8: the same bytes on every machine."""
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    return "".join(line + "\n" for line in lines).encode()


def chat(question: str, answer: str) -> dict[str, Any]:
    """One turn as an example of the `messages` form."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
