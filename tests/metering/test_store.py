"""When the database is away, callers get one named error, and service goes on once it is back."""

from __future__ import annotations

import dataclasses

import apsw
import psycopg
import pytest

from metering import store_sqlite
from metering.errors import LedgerElsewhere, LedgerUnavailable
from metering.ledger import Ledger
from metering.status import Status
from tests.metering.conftest import fresh_ledger_url


def test_an_unreachable_server_is_named(config):
    """No PostgreSQL server at the address: LedgerUnavailable, which the edge answers with 503."""
    with pytest.raises(LedgerUnavailable):
        Ledger.open(dataclasses.replace(config, ledger_url="postgresql://nobody@/none?host=/nonexistent"))


def test_a_file_that_cannot_be_opened_is_named(config):
    """An embedded ledger whose path is taken by a directory: LedgerUnavailable."""
    config.ledger_path.mkdir(parents=True)
    with pytest.raises(LedgerUnavailable):
        Ledger.open(config)


def test_a_data_directory_keeps_its_kind_of_ledger(config, tmp_path, request):
    """A forgotten (or added) setting does not put an empty ledger in the place of the one with the money."""
    server = dataclasses.replace(config, ledger_url=fresh_ledger_url("postgresql", request))
    Ledger.open(server).close()
    with pytest.raises(LedgerElsewhere, match="set OPENLEDGER_LEDGER"):
        Ledger.open(config)
    assert not config.ledger_path.exists()
    embedded = dataclasses.replace(config, data_dir=tmp_path / "other")
    Ledger.open(embedded).close()
    with pytest.raises(LedgerElsewhere, match="unset OPENLEDGER_LEDGER"):
        Ledger.open(dataclasses.replace(embedded, ledger_url=server.ledger_url))


def test_a_lost_connection_fails_one_command_and_is_replaced(config, postgres_server):
    """A server that drops its sessions costs the command in hand, and nothing is half done."""
    schema_url = f"{postgres_server}&options=-csearch_path%3Dlost"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA lost")
        ledger = Ledger.open(dataclasses.replace(config, ledger_url=schema_url))
        assert ledger.credit("t-1", "acme", 5) is Status.OK
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        with pytest.raises(LedgerUnavailable):
            ledger.credit("t-2", "acme", 5)
        assert ledger.credit("t-2", "acme", 5) is Status.OK
        assert ledger.balance("acme").available == 10
        ledger.close()


def test_a_failed_transaction_leaves_nothing(ledger):
    """An exception inside a write transaction undoes all of it, and the next one works."""

    class Crash(Exception):
        pass

    def crash() -> None:
        with ledger.store.write() as connection:
            connection.execute(
                "INSERT INTO documents (digest, kind, body) VALUES ('x', 'y', 'z')".replace("'z'", "x'00'")
            )
            raise Crash

    with pytest.raises(Crash):
        crash()
    assert ledger.document("x") is None
    assert ledger.credit("t", "acme", 1) is Status.OK


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO transfers (id, debit, credit, amount, code, time_us) VALUES ('x', 1, 99, 1, 'y', 1)",
        "INSERT INTO transfers (id, debit, credit, amount, code, time_us) VALUES ('x', 99, 1, 1, 'y', 1)",
        "UPDATE transfers SET debit = 999",
        "DELETE FROM accounts",
    ],
)
def test_a_transfer_is_between_two_accounts_whatever_is_said_in_sql(config, every_store, statement):
    """The database itself refuses a transfer of an unknown account, and keeps the accounts of those it has."""
    ledger = Ledger.open(dataclasses.replace(config, ledger_url=every_store))
    ledger.credit("t", "acme", 1).require()
    with pytest.raises((apsw.ConstraintError, psycopg.IntegrityError)), ledger.store.write() as connection:
        connection.execute(statement)
    assert ledger.balance("acme").available == 1
    ledger.close()


@pytest.mark.parametrize("working", [True, False])
def test_the_log_of_the_embedded_ledger_stays_small(config, monkeypatch, working):
    """Its pages are copied back beside the commits; if that does not work, by the commit that finds it large."""
    monkeypatch.setattr(store_sqlite, "CHECKPOINT_PAGES", 40)
    monkeypatch.setattr(store_sqlite, "CHECKPOINT_NOW_PAGES", 40_000 if working else 120)
    if not working:
        monkeypatch.setattr(store_sqlite.Checkpointer, "_copy_back", lambda self: None)
    store = store_sqlite.SqliteStore(config.ledger_path)
    log = config.ledger_path.with_name(f"{config.ledger_path.name}-wal")
    sizes, page = [], b"\0" * store_sqlite.PAGE_BYTES
    for number in range(200):
        with store.write() as connection:
            connection.insert("documents", "digest, kind, body", [(f"{number}/{i}", "test", page) for i in range(5)])
        if working and (copying := store._checkpointer._last):
            copying.result()
        sizes.append(log.stat().st_size // store_sqlite.PAGE_BYTES)
    store.close()
    assert max(sizes) < (120 if working else 200)
    with store_sqlite.SqliteStore(config.ledger_path).read() as connection:
        assert connection.execute("SELECT count(*) FROM documents") == [(1000,)]
