"""The gateway's HTTP API as the commands use it; URL and key come from the environment, like the openai SDK's."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.cli.failures import REFUSED, UNREACHABLE, USAGE, Failure

DEFAULT_URL = "http://127.0.0.1:8000/v1"
SLOWEST_SECONDS = 600.0


@dataclass(frozen=True)
class Api:
    """One gateway and one key. Raises Failure: REFUSED with the server's message, UNREACHABLE without a server."""

    url: str  # ends with /v1
    key: str

    @classmethod
    def from_environment(cls, admin: bool = False) -> "Api":
        """URL: OPENLEDGER_URL, OPENAI_BASE_URL. Key: OPENLEDGER_API_KEY, OPENAI_API_KEY, the operator's key file here.

        For an operator's command (`admin`) the key file comes before OPENAI_API_KEY.
        """
        url = os.environ.get("OPENLEDGER_URL") or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        keys = [os.environ.get("OPENAI_API_KEY"), operator_key()]
        key = os.environ.get("OPENLEDGER_API_KEY") or next(filter(None, reversed(keys) if admin else keys), None)
        if key is None:
            raise Failure(USAGE, "no API key: set OPENAI_API_KEY (or OPENLEDGER_API_KEY)")
        url = url.rstrip("/")
        return cls(url if url.endswith("/v1") else f"{url}/v1", key)

    def get(self, path: str, **query: Any) -> Any:
        return self.send("GET", path, query=query).json()

    def text(self, path: str, **query: Any) -> str:
        return self.send("GET", path, query=query).text

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        return self.send("POST", path, query=query, json=body or {}).json()

    def delete(self, path: str, **query: Any) -> Any:
        return self.send("DELETE", path, query=query).json()

    def upload(self, path: str, content: bytes | Iterable[bytes], **query: Any) -> Any:
        """POST of raw bytes, streamed when they come as an iterable."""
        return self.send("POST", path, query=query, content=content).json()

    def download(self, path: str, out: Path, **query: Any) -> httpx.Headers:
        """GET into a file."""
        try:
            with httpx.stream("GET", self.url + path, params=_given(query), **self._options()) as response:
                if response.status_code >= 400:
                    response.read()
                    raise refused(response)
                with out.open("wb") as file:
                    for block in response.iter_bytes():
                        file.write(block)
                return response.headers
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def send(
        self, method: str, path: str, *, query: Mapping[str, Any], headers: Mapping[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """One request; an answer of 400 or above is a Failure."""
        options = self._options()
        options["headers"] |= headers or {}
        try:
            response = httpx.request(method, self.url + path, params=_given(query), **options, **body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise refused(response)
        return response

    def _options(self) -> dict[str, Any]:
        return {"headers": {"authorization": f"Bearer {self.key}"}, "timeout": SLOWEST_SECONDS}

    def _unreachable(self, error: httpx.HTTPError) -> Failure:
        return Failure(UNREACHABLE, f"no answer from {self.url}: {error}")


def operator_key() -> str | None:
    """The operator's key, where the data directory is on this machine and readable."""
    path = data_directory() / "operator.key"
    try:
        return path.read_text().strip()
    except OSError:
        return None


def data_directory() -> Path:
    """$OPENLEDGER_DATA or $DATA, else ./data."""
    return Path(os.environ.get("OPENLEDGER_DATA") or os.environ.get("DATA") or "data")


def refused(response: httpx.Response) -> Failure:
    """The server's error as one line."""
    try:
        error = response.json()["error"]
        return Failure(REFUSED, f"{error['message']} ({response.status_code}, {error['code']})")
    except (ValueError, KeyError, TypeError):
        return Failure(REFUSED, f"the server answered {response.status_code}")


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
