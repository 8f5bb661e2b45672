"""Accounts and keys."""

import stat
from pathlib import Path

import pytest

from gateway.accounts import Accounts, ensure_operator
from gateway.database import Database
from gateway.errors import Conflict, InvalidRequest, NotFound, Unauthenticated


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


def test_a_key_opens_its_account(accounts: Accounts) -> None:
    """The secret is enough to know the caller."""
    accounts.create("alice")
    key = accounts.create_key("alice", "laptop")
    caller = accounts.authenticate(key["secret"])
    assert (caller.account, caller.role, caller.key_id) == ("alice", "member", key["id"])


def test_the_secret_is_stored_nowhere(accounts: Accounts, tmp_path: Path) -> None:
    """Whoever reads the database cannot call as anybody."""
    accounts.create("alice")
    secret = accounts.create_key("alice")["secret"]
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))
    assert b"alice" in stored
    assert secret.encode() not in stored
    assert secret.removeprefix("sk-ol-").encode() not in stored
    assert "secret" not in accounts.keys("alice")[0]


@pytest.mark.parametrize("secret", ["", "sk-ol-", "sk-ol-wrong", "\ud800".encode("utf-8", "surrogatepass").hex()])
def test_an_unknown_key_is_refused(accounts: Accounts, secret: str) -> None:
    """No prefix and no empty string passes."""
    accounts.create("alice")
    accounts.create_key("alice")
    with pytest.raises(Unauthenticated):
        accounts.authenticate(secret)


def test_a_revoked_key_is_refused_at_once(accounts: Accounts) -> None:
    """The other keys of the account go on."""
    accounts.create("alice")
    first, second = accounts.create_key("alice"), accounts.create_key("alice")
    accounts.revoke_key("alice", first["id"])
    with pytest.raises(Unauthenticated):
        accounts.authenticate(first["secret"])
    assert accounts.authenticate(second["secret"]).account == "alice"


def test_another_accounts_key_cannot_be_revoked(accounts: Accounts) -> None:
    """It is not found, as if it did not exist."""
    accounts.create("alice")
    accounts.create("bob")
    key = accounts.create_key("bob")
    with pytest.raises(NotFound):
        accounts.revoke_key("alice", key["id"])
    assert accounts.authenticate(key["secret"]).account == "bob"


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "a" * 64, "ä", "a b", "a\n"])
def test_a_name_is_one_path_segment(accounts: Accounts, name: str) -> None:
    """It becomes the first part of model names."""
    with pytest.raises(InvalidRequest):
        accounts.create(name)


def test_a_name_is_taken_once(accounts: Accounts) -> None:
    """The second account of a name is a conflict, not the first one again."""
    accounts.create("alice")
    with pytest.raises(Conflict):
        accounts.create("alice", "admin")
    assert accounts.get("alice")["role"] == "member"


def test_the_operators_key_is_made_once_and_kept_private(accounts: Accounts, tmp_path: Path) -> None:
    """A second start uses the first one's key; only this user reads the file."""
    file = tmp_path / "operator.key"
    secret = ensure_operator(accounts, file)
    assert ensure_operator(accounts, file) == secret
    assert accounts.authenticate(secret).is_admin
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_lost_operator_key_file_is_made_anew(accounts: Accounts, tmp_path: Path) -> None:
    """The account stays the same."""
    file = tmp_path / "operator.key"
    ensure_operator(accounts, file)
    file.unlink()
    assert accounts.authenticate(ensure_operator(accounts, file)).account == "operator"
    assert len(accounts.all()) == 1
