"""registry.db: writers take turns, readers don't wait, and what is committed stays."""

import threading

import apsw
import pytest

from adapters.database import Database
from adapters.migrations import MIGRATIONS


def add(connection: apsw.Connection, name: str) -> None:
    connection.execute("INSERT INTO namespaces VALUES (?, 'pia', 'account', 0)", (name,))


def add_all(database: Database, added: list[str]) -> None:
    with database.transaction() as connection:
        for name in added:
            add(connection, name)


def names(database: Database) -> list[str]:
    return [name for (name,) in database.rows("SELECT name FROM namespaces ORDER BY name")]


def test_settings(database):
    """The file is in WAL mode, synced fully, with foreign keys enforced, at the newest migration."""
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
        assert database.row(f"PRAGMA {pragma}") == (value,)
        with database.transaction() as connection:
            assert connection.execute(f"PRAGMA {pragma}").get == value
    assert database.row("PRAGMA user_version") == (len(MIGRATIONS),)


def test_a_transaction_sees_itself_and_others_do_not(database):
    """Within a transaction its thread reads what it wrote; another thread reads at once, and what was there before."""
    seen = {}

    def read() -> None:
        seen["other"] = names(database)

    with database.transaction() as connection:
        add(connection, "ann")
        seen["own"] = names(database)
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(timeout=5)
        assert not thread.is_alive()
    assert seen == {"own": ["ann"], "other": []}
    assert names(database) == ["ann"]


def test_an_error_rolls_back(database):
    """After an exception nothing of the transaction is left, and the next one works."""
    with pytest.raises(apsw.ConstraintError):
        add_all(database, ["ann", "ann"])
    assert names(database) == []
    with database.transaction() as connection:
        add(connection, "bob")
    assert names(database) == ["bob"]


def test_a_full_store_refuses_and_recovers(database):
    """When the file cannot grow the caller gets the error, keeps what was committed, and writes again later."""
    with database.transaction() as connection:
        add(connection, "ann")
        pages = connection.execute("PRAGMA page_count").get
        connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(apsw.FullError):
        add_all(database, [f"a{number}" for number in range(10_000)])
    assert names(database) == ["ann"]
    with database.transaction() as connection:
        connection.execute("PRAGMA max_page_count=1000000")
        add(connection, "bob")
    assert names(database) == ["ann", "bob"]


def test_threads_take_turns(database):
    """Transactions of many threads all commit, one after the other."""

    def write(first: int) -> None:
        for number in range(first, first + 10):
            with database.transaction() as connection:
                add(connection, f"a{number}")

    threads = [threading.Thread(target=write, args=(first * 10,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(database)) == 80
