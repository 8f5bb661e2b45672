"""Request and token limits per API key: fixed windows of one minute, shared by all workers, lost with the machine."""

import time
from dataclasses import dataclass
from pathlib import Path

from gateway.database import Database
from gateway.errors import RateLimited

WINDOW_SECONDS = 60
SCHEMA = (
    """
    CREATE TABLE windows (
        key_id TEXT PRIMARY KEY,
        window INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        tokens INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)


@dataclass(frozen=True)
class Standing:
    """What a key has left in the running window."""

    limit_requests: int
    limit_tokens: int
    remaining_requests: int
    remaining_tokens: int
    reset_seconds: float

    def headers(self) -> dict[str, str]:
        """OpenAI's x-ratelimit-* headers."""
        reset = f"{self.reset_seconds:.3f}s"
        return {
            "x-ratelimit-limit-requests": str(self.limit_requests),
            "x-ratelimit-limit-tokens": str(self.limit_tokens),
            "x-ratelimit-remaining-requests": str(self.remaining_requests),
            "x-ratelimit-remaining-tokens": str(self.remaining_tokens),
            "x-ratelimit-reset-requests": reset,
            "x-ratelimit-reset-tokens": reset,
        }


class Limits:
    """Counts admitted requests and worst-case tokens; `refund` gives back tokens that were not generated."""

    def __init__(self, path: Path, requests_per_minute: int, tokens_per_minute: int) -> None:
        self._database = Database(path, SCHEMA, synchronous="OFF")
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute

    def admit(self, key_id: str, tokens: int) -> Standing:
        """Takes one request and `tokens` from the window. Raises RateLimited, taking nothing, when either is short."""
        now = time.time()
        window = int(now // WINDOW_SECONDS)
        reset_seconds = (window + 1) * WINDOW_SECONDS - now
        with self._database.transaction() as execute:
            [(used_requests, used_tokens)] = execute(
                "INSERT INTO windows VALUES (?1, ?2, 0, 0) ON CONFLICT (key_id) DO UPDATE SET"
                " requests = iif(window = ?2, requests, 0), tokens = iif(window = ?2, tokens, 0), window = ?2"
                " RETURNING requests, tokens",
                (key_id, window),
            )
            for what, used, wanted, limit in (
                ("requests", used_requests, 1, self._requests),
                ("tokens", used_tokens, tokens, self._tokens),
            ):
                if used + wanted > limit:
                    raise RateLimited(
                        f"Rate limit reached for {what} per minute: limit {limit}, used {used}, requested {wanted}.",
                        retry_after_seconds=reset_seconds,
                    )
            execute(
                "UPDATE windows SET requests = requests + 1, tokens = tokens + ? WHERE key_id = ?", (tokens, key_id)
            )
        return Standing(
            self._requests,
            self._tokens,
            self._requests - used_requests - 1,
            self._tokens - used_tokens - tokens,
            reset_seconds,
        )

    def refund(self, key_id: str, tokens: int) -> None:
        """Gives back tokens of the running window."""
        with self._database.transaction() as execute:
            execute(
                "UPDATE windows SET tokens = max(tokens - ?, 0) WHERE key_id = ? AND window = ?",
                (tokens, key_id, int(time.time() // WINDOW_SECONDS)),
            )
