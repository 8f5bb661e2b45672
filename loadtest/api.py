"""The gateway's HTTP API, as far as a load test and a benchmark need it."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from loadtest.errors import Refused, Unreachable

POLL_SECONDS = 0.2


class Gateway:
    """One gateway and one key. Raises Refused with the server's message, Unreachable without a server."""

    def __init__(self, url: str, key: str, timeout_seconds: float = 300) -> None:
        self.url, self.key = url, key
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=timeout_seconds, trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def as_account(self, key: str) -> "Gateway":
        """The same gateway with another key."""
        return Gateway(self.url, key)

    def get(self, path: str, **query: Any) -> Any:
        return self._send("GET", path, params=query).json()

    def find(self, path: str) -> Any | None:
        """The object at a path, or None when there is none."""
        response = self._raw("GET", path)
        return None if response.status_code == 404 else self._accepted(response).json()

    def post(self, path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        return self._send("POST", path, json=body or {}, params=query).json()

    def upload(self, path: str, content: bytes, **query: Any) -> Any:
        return self._send("POST", path, content=content, params=query).json()

    def new_account(self, name: str, amount: str) -> str:
        """A member account with credit (operator's key only); returns its key."""
        self.post("/accounts", {"name": name})
        self.post("/credit", {"account": name, "amount": amount})
        return self.post(f"/accounts/{name}/keys", {"label": "load test"})["secret"]

    def model_names(self) -> list[str]:
        """Adapters by name, then base models; without the names that carry a tag."""
        models = [model for model in self.get("/models")["data"] if ":" not in model["id"]]
        return [model["id"] for model in sorted(models, key=lambda model: not model.get("adapter"))]

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._accepted(self._raw(method, path, **options))

    def _raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer from {self.url}: {error!r}") from error

    @staticmethod
    def _accepted(response: httpx.Response) -> httpx.Response:
        if response.status_code < 400:
            return response
        raise Refused(f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text}")


def until(what: Callable[[], bool], seconds: float) -> bool:
    """Whether `what()` became true in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
