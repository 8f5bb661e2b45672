"""The log's key can be changed; what the old one signed stays good, and it signs nothing more."""

from __future__ import annotations

import os
import stat

import pytest

from metering.canonical import digest
from metering.check import run_checks
from metering.errors import LogKeyRetired, NoteInvalid, ReceiptInvalid
from metering.log import latest_checkpoint
from metering.log_key import load_signer, rotate_key
from metering.note import NoteSigner, NoteVerifier
from metering.receipt import build_receipt, verify_receipt
from metering.settler import Settler


@pytest.fixture
def ledger_url(every_store) -> str:
    return every_store


def keys_of(market) -> str:
    return market.config.log_public_key_path.read_text()


def settle(market, settler, count: int = 3) -> list[bytes]:
    """Receipts of so many new requests."""
    events = market.serve(count)
    settler.read_key()
    settler.drain()
    return [build_receipt(market.ledger, event.id) for event in events]


def test_receipts_of_every_key_verify_with_the_newest_list(market, settler):
    """Through two rotations, each receipt verifies with the list of today; the check is clean."""
    receipts = settle(market, settler)
    for _ in range(2):
        rotate_key(market.config, market.ledger)
        receipts += settle(market, settler)
    assert len(keys_of(market).splitlines()) == 3
    assert [verify_receipt(data, keys_of(market)).tree_size for data in receipts] == [6] * 3 + [10] * 3 + [14] * 3
    assert run_checks(market.config, market.ledger).findings == ()


def test_the_retired_key_signs_no_later_tree(market, settler):
    """Whoever stole it cannot sign what came after: its checkpoint of a later tree is refused by size."""
    settle(market, settler)
    old = load_signer(market.config, market.ledger)
    rotate_key(market.config, market.ledger)
    data = settle(market, settler)[-1]
    note = latest_checkpoint(market.ledger)
    text = note.partition("\n\n")[0] + "\n"
    with pytest.raises(NoteInvalid, match="at most 6"):
        NoteVerifier(keys_of(market)).open_checkpoint(old.sign(text))
    forged = data.replace(
        note.rpartition(" ")[2].rstrip("\n").encode(), old.sign(text).rpartition(" ")[2].rstrip("\n").encode()
    )
    assert forged != data
    with pytest.raises(ReceiptInvalid) as failed:
        verify_receipt(forged, keys_of(market))
    assert failed.value.step == "checkpoint"
    new = load_signer(market.config, market.ledger)
    with pytest.raises(NoteInvalid, match="more than 6"):  # nor does the new key rewrite what the old one signed
        NoteVerifier(keys_of(market)).open_checkpoint(new.sign(text.replace("\n10\n", "\n6\n")))


def test_a_settler_that_runs_takes_the_new_key(market, settler):
    """With the old key in memory it signs nothing; it reads the new one and goes on. Nothing is lost."""
    settle(market, settler)
    rotate_key(market.config, market.ledger)
    [event] = market.serve(1)
    with pytest.raises(LogKeyRetired):
        settler.drain()
    settler.read_key()
    assert settler.drain().settled == 1
    verify_receipt(build_receipt(market.ledger, event.id), keys_of(market))


def test_the_rotation_is_an_entry_that_the_old_key_signed(market, settler):
    """Its document says which key follows which, from which size on."""
    settle(market, settler)
    before = keys_of(market).strip()
    document = rotate_key(market.config, market.ledger)
    assert (document["previous"], document["until"], document["leaf_index"]) == (before, 6, 6)
    body = market.ledger.document(document["digest"])
    assert digest(body) == document["digest"]
    assert keys_of(market).splitlines()[0] == document["key"] == load_signer(market.config, market.ledger).public_key
    assert stat.S_IMODE(market.config.log_key_path.stat().st_mode) == 0o600
    assert not market.config.log_key_path.with_name("log.key.next").exists()


def test_a_rotation_that_was_cut_short_is_finished(market, settler, monkeypatch):
    """After a crash between the ledger's commit and the files, whoever loads the key puts the files right."""
    settle(market, settler)

    def crash(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            rotate_key(market.config, market.ledger)
    [event] = market.serve(1)
    settler.close()
    again = Settler(market.config)
    again.drain()
    again.close()
    assert len(keys_of(market).splitlines()) == 2
    verify_receipt(build_receipt(market.ledger, event.id), keys_of(market))


def test_a_settler_with_nothing_to_sign_finishes_a_rotation(market, settler, monkeypatch):
    """Nobody asks for the key and nothing is settled: what the new key signed can be verified all the same."""
    settle(market, settler)

    def crash(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            rotate_key(market.config, market.ledger)
    with pytest.raises(NoteInvalid):
        NoteVerifier(keys_of(market)).open_checkpoint(latest_checkpoint(market.ledger))
    settler.tick()
    NoteVerifier(keys_of(market)).open_checkpoint(latest_checkpoint(market.ledger))
    assert run_checks(market.config, market.ledger).clean


def test_heads_stay_in_the_order_of_time(market, settler, monkeypatch):
    """An operator's clock that is behind puts no head before an earlier one: months are cut out of the log by time."""
    settle(market, settler)
    monkeypatch.setattr("metering.log_key.now_us", lambda: 1)
    rotate_key(market.config, market.ledger)
    with market.ledger.store.read() as connection:
        times = connection.execute("SELECT time_us FROM log_checkpoints ORDER BY size")
    assert times == sorted(times)


def test_a_key_that_was_made_but_never_took_over_is_dropped(market, settler):
    """A crash before the ledger's commit leaves a file that the next rotation replaces; the old key goes on."""
    settle(market, settler)
    before = keys_of(market)
    NoteSigner.create(market.config.log_key_path.with_name("log.key.next"), market.config.log_origin)
    assert load_signer(market.config, market.ledger).public_key + "\n" == before
    rotate_key(market.config, market.ledger)
    settle(market, settler)


def test_a_list_that_no_key_vouches_for_is_refused(market, settler):
    """A retired key must have signed the very key above it and the very size; keys are retired in order."""
    settle(market, settler)
    rotate_key(market.config, market.ledger)
    new, retired = keys_of(market).splitlines()
    stranger = NoteSigner(market.config.log_origin, b"\1" * 32).public_key
    for lines in ([stranger, retired], [retired], [new, retired.replace("until 6", "until 7")], [new, retired[:-8]]):
        with pytest.raises(NoteInvalid):
            NoteVerifier("\n".join(lines))
