"""A document: canonical JSON bytes that the caller appends to the transparency log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import digest


@dataclass(frozen=True, slots=True)
class Document:
    """`content` is canonical JSON whose member `type` is `kind`; `digest` is the digest of `content`."""

    kind: str
    digest: str
    content: bytes

    @classmethod
    def of(cls, value: Mapping[str, object]) -> "Document":
        """The document of a value with a string member `type`; InvalidDocument for what canonical JSON cannot carry."""
        content = canonical_json(value)
        return cls(str(value["type"]), digest(content), content)

    def value(self) -> dict[str, Any]:
        return parse_canonical(self.content)
