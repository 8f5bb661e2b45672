"""Accounts and API keys. An account's name is also its namespace; a key is stored as its sha-256 and shown once."""

import hashlib
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apsw
import uuid_utils

from gateway.database import Database
from gateway.errors import WRONG_KEY, Conflict, InvalidRequest, NotFound, Unauthenticated

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ROLES = ("admin", "member")
PREFIX = "sk-ol-"


@dataclass(frozen=True)
class Caller:
    """Who sent a request."""

    account: str
    role: str
    key_id: str

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


class Accounts:
    """The accounts and keys of gateway.db."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, role: str = "member") -> dict:
        """A new account. Raises InvalidRequest for a name that is no path segment, Conflict when it is taken."""
        if not NAME.fullmatch(name):
            raise InvalidRequest(f"account name {name!r} must match {NAME.pattern}", param="name", code="invalid_name")
        if role not in ROLES:
            raise InvalidRequest(f"role must be one of {', '.join(ROLES)}", param="role")
        created = int(time.time())
        try:
            with self._database.transaction() as execute:
                execute("INSERT INTO accounts VALUES (?, ?, ?)", (name, role, created))
        except apsw.ConstraintError:
            raise Conflict(f"account {name!r} exists", code="account_exists") from None
        return {"object": "account", "name": name, "role": role, "created": created}

    def get(self, name: str) -> dict:
        """One account, or NotFound."""
        row = self._database.row("SELECT role, created_seconds FROM accounts WHERE name = ?", name)
        if row is None:
            raise NotFound(f"no account {name!r}", code="account_not_found")
        return {"object": "account", "name": name, "role": row[0], "created": row[1]}

    def all(self) -> list[dict]:
        """All accounts by name."""
        rows = self._database.rows("SELECT name, role, created_seconds FROM accounts ORDER BY name")
        return [{"object": "account", "name": name, "role": role, "created": created} for name, role, created in rows]

    def create_key(self, account: str, label: str = "") -> dict:
        """A new key of an account; `secret` is in this answer and nowhere else."""
        self.get(account)
        secret = PREFIX + secrets.token_urlsafe(32)
        key_id = f"key_{uuid_utils.uuid7().hex}"
        created = int(time.time())
        with self._database.transaction() as execute:
            execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, NULL)", (key_id, _digest(secret), account, label, created)
            )
        return {
            "object": "api_key",
            "id": key_id,
            "account": account,
            "label": label,
            "created": created,
            "secret": secret,
        }

    def keys(self, account: str) -> list[dict]:
        """The keys of an account, without secrets."""
        rows = self._database.rows(
            "SELECT id, label, created_seconds, revoked_seconds FROM api_keys WHERE account = ? ORDER BY id", account
        )
        names = ("id", "label", "created", "revoked")
        return [{"object": "api_key", "account": account, **dict(zip(names, row, strict=True))} for row in rows]

    def revoke_key(self, account: str, key_id: str) -> dict:
        """Revokes a key at once; revoking twice changes nothing. Raises NotFound for another account's key."""
        with self._database.transaction() as execute:
            found = execute(
                "UPDATE api_keys SET revoked_seconds = coalesce(revoked_seconds, ?)"
                " WHERE id = ? AND account = ? RETURNING label, created_seconds, revoked_seconds",
                (int(time.time()), key_id, account),
            )
        if not found:
            raise NotFound(f"account {account!r} has no key {key_id!r}", code="key_not_found")
        label, created, revoked = found[0]
        return {
            "object": "api_key",
            "id": key_id,
            "account": account,
            "label": label,
            "created": created,
            "revoked": revoked,
        }

    def authenticate(self, secret: str) -> Caller:
        """The caller behind a key. Raises Unauthenticated for an unknown or revoked one."""
        row = self._database.row(
            "SELECT a.name, a.role, k.id FROM api_keys k JOIN accounts a ON a.name = k.account"
            " WHERE k.secret_sha256 = ? AND k.revoked_seconds IS NULL",
            _digest(secret),
        )
        if row is None:
            raise Unauthenticated(WRONG_KEY)
        return Caller(*row)


def ensure_operator(accounts: Accounts, key_file: Path, name: str = "operator") -> str:
    """The operator's key, made on first start and kept in a file that only this user reads."""
    if key_file.exists():
        return key_file.read_text().strip()
    with suppress(Conflict):  # the file was lost or removed: the account stays, a new key is made
        accounts.create(name, "admin")
    secret = accounts.create_key(name, "made at first start")["secret"]
    write_secret(key_file, secret + "\n")
    return secret


def write_secret(path: Path, text: str) -> None:
    """Writes a file of mode 600 in one step: no reader sees it empty or open."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    staged.touch(mode=0o600)
    staged.write_text(text)
    staged.rename(path)


def _digest(secret: str) -> bytes:
    """sha-256 without salt or stretching: a key is 256 random bits, not a password."""
    return hashlib.sha256(secret.encode()).digest()
