"""Stored answers: the same Idempotency-Key and body get the same answer, also after a restart, and are billed once."""

import hashlib
import time
from dataclasses import dataclass

from gateway.database import Database
from gateway.errors import InvalidRequest, KeyReused, StillInFlight

LONGEST_KEY = 255


@dataclass(frozen=True)
class StoredAnswer:
    """What a first request was answered: an HTTP status, a media type and all bytes of the body (also of a stream)."""

    request_id: str
    status: int
    media_type: str
    body: bytes


class Answers:
    """The answers table of gateway.db, scoped by account."""

    def __init__(self, database: Database, kept_seconds: int) -> None:
        self._database = database
        self._kept_seconds = kept_seconds

    def claim(self, account: str, key: str, path: str, body: bytes, request_id: str) -> StoredAnswer | None:
        """Takes the key for a new request (None), or returns the stored answer.

        Raises InvalidRequest for an empty or overlong key, KeyReused for another body, StillInFlight while the first
        request runs.
        """
        if not 0 < len(key) <= LONGEST_KEY:
            raise InvalidRequest(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters", code="invalid_key")
        digest = hashlib.sha256(path.encode() + b"\0" + body).digest()
        now = int(time.time())
        with self._database.transaction() as execute:
            execute(
                "DELETE FROM answers WHERE account = ? AND key = ? AND status IS NOT NULL AND created_seconds < ?",
                (account, key, now - self._kept_seconds),
            )
            rows = execute(
                "SELECT request_sha256, request_id, status, media_type, body FROM answers"
                " WHERE account = ? AND key = ?",
                (account, key),
            )
            if not rows:
                execute(
                    "INSERT INTO answers (account, key, request_sha256, request_id, created_seconds)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (account, key, digest, request_id, now),
                )
                return None
        stored_digest, first_request_id, status, media_type, stored_body = rows[0]
        if stored_digest != digest:
            raise KeyReused("This Idempotency-Key was used with another body.")
        if status is None:
            raise StillInFlight("The first request with this Idempotency-Key is in flight.", retry_after_seconds=1)
        return StoredAnswer(first_request_id, status, media_type, stored_body)

    def store(self, answer: StoredAnswer) -> None:
        """Keeps the answer for the key that its request claimed."""
        with self._database.transaction() as execute:
            execute(
                "UPDATE answers SET status = ?, media_type = ?, body = ? WHERE request_id = ? AND status IS NULL",
                (answer.status, answer.media_type, answer.body, answer.request_id),
            )

    def is_stored(self, request_id: str) -> bool:
        """True when a retry of this request's key gets its answer."""
        return (
            self._database.row("SELECT 1 FROM answers WHERE request_id = ? AND status IS NOT NULL", request_id)
            is not None
        )

    def release(self, request_id: str) -> None:
        """Gives back the key of a request that was refused or lost without an answer: a retry runs anew."""
        with self._database.transaction() as execute:
            execute("DELETE FROM answers WHERE request_id = ? AND status IS NULL", (request_id,))

    def expire(self) -> None:
        """Forgets answers older than they are kept."""
        with self._database.transaction() as execute:
            execute(
                "DELETE FROM answers WHERE status IS NOT NULL AND created_seconds < ?",
                (int(time.time()) - self._kept_seconds,),
            )
