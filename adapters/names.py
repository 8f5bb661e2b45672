"""Human names: accounts and Datanets (namespaces), and `namespace/adapter[:tag]`, the names models are served under."""

import re
from dataclasses import dataclass

from adapters.errors import InvalidName

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ADAPTER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")

DEFAULT_TAG = "latest"


def check_name(name: str, what: str = "name") -> str:
    """`name` itself if it fits `[a-z0-9][a-z0-9-]{0,62}`, else InvalidName."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(f"{what} {name!r} must be 1 to 63 of a-z, 0-9 and '-', not starting with '-'")
    return name


@dataclass(frozen=True, slots=True)
class ModelName:
    """`namespace/adapter` (its promoted tag) or `namespace/adapter:tag`."""

    namespace: str
    adapter: str
    tag: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Raises InvalidName unless `text` is a segment, a slash, an adapter name and perhaps a colon and a tag."""
        namespace, slash, rest = text.partition("/")
        adapter, colon, tag = rest.partition(":")
        if not slash:
            raise InvalidName(f"model name {text!r} must be namespace/adapter or namespace/adapter:tag")
        check_name(namespace, "namespace")
        if not _ADAPTER.fullmatch(adapter):
            raise InvalidName(f"adapter name {adapter!r} must be 1 to 63 of a-z, 0-9, '.', '_' and '-'")
        if colon and not _TAG.fullmatch(tag):
            raise InvalidName(f"tag {tag!r} must be 1 to 63 of letters, digits, '.', '_' and '-'")
        return cls(namespace, adapter, tag if colon else None)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.adapter}" + (f":{self.tag}" if self.tag is not None else "")
