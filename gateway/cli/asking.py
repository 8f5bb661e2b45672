"""Asking a model for a streamed answer with the scores of each token."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from gateway.cli.api import SLOWEST_SECONDS, Api, refused
from gateway.cli.failures import REFUSED, UNREACHABLE, Failure


@dataclass
class Asked:
    """An answer: its tokens with signed scores (micro-nats by contributor), and what came with its last chunk."""

    text: str = ""
    tokens: list[dict[str, Any]] = field(default_factory=list)
    closing: dict[str, Any] = field(default_factory=dict)

    def take(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Adds one chunk; returns the tokens that it brought."""
        if "error" in chunk:
            raise Failure(REFUSED, chunk["error"]["message"])
        new: list[dict[str, Any]] = []
        for choice in chunk["choices"]:
            self.text += choice.get("delta", {}).get("content") or ""
            new += choice.get("attribution", {}).get("tokens", [])
        self.tokens += new
        self.closing |= {name: chunk[name] for name in CLOSING if chunk.get(name) is not None}
        return new


CLOSING = ("usage", "attribution", "receipt_id", "receipt_salt")


def ask(api: Api, model: str, question: str, show: Callable[[list[dict[str, Any]]], None], limit: int = 64) -> Asked:
    """Streams a chat answer; `show` gets new tokens as they come."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "max_tokens": limit,
        "temperature": 0,
        "attribution": "tokens",
    }
    asked = Asked()
    headers = {"authorization": f"Bearer {api.key}"}
    try:
        with httpx.stream(
            "POST", f"{api.url}/chat/completions", json=body, headers=headers, timeout=SLOWEST_SECONDS
        ) as response:
            if response.status_code != 200:
                response.read()
                raise refused(response)
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if data != line and data != "[DONE]":
                    show(asked.take(orjson.loads(data)))
    except httpx.HTTPError as error:
        raise Failure(UNREACHABLE, f"no answer from {api.url}: {error}") from error
    return asked
