"""`check` is clean when all is well and names each kind of damage: every invariant is broken here once, by hand."""

from __future__ import annotations

import pytest

from metering.check import run_checks
from metering.ledger import now_us
from metering.log_key import rotate_key


def tally(events) -> dict[str, int]:
    return {event.id: event.completion_tokens for event in events}


def test_a_working_market_is_clean_at_every_stage(market, settler):
    """Before, between and after settlement and payment, with a request in flight, there is no finding."""
    assert run_checks(market.config, market.ledger, {}).clean is True
    in_flight = market.event()
    market.hold(in_flight)
    events = [*market.serve(4), *market.serve(2, adapter=None), *market.serve(1, purpose="canary")]
    generated = tally([*events, in_flight])
    assert run_checks(market.config, market.ledger, generated).clean  # nothing settled: metered in the journal
    settler.drain()
    assert run_checks(market.config, market.ledger, generated).clean
    settler.close_window()
    report = run_checks(market.config, market.ledger, generated)
    assert report.clean
    totals = report.totals
    assert totals["generated_tokens"] == totals["metered_tokens"] + 7  # the one in flight
    assert totals["rated_nanos"] == totals["debited_nanos"]
    assert totals["rated_nanos"] == totals["credited_nanos"] + totals["fee_nanos"] + totals["residue_nanos"]
    assert totals["unsettled_records"] == 0


def test_the_lag_is_reported(market, settler):
    """Records that wait in the journal are counted, not found fault with."""
    market.serve(3)
    assert run_checks(market.config, market.ledger).totals["unsettled_records"] == 3


@pytest.mark.parametrize(
    ("generated", "finding"),
    [
        (lambda events: tally(events) | {events[0].id: 8}, "generated_not_metered"),
        (lambda events: tally(events) | {"req_" + "f" * 32: 1}, "generated_not_metered"),
        (lambda events: tally(events[1:]), "metered_not_generated"),
    ],
)
def test_the_engine_tally_is_compared_request_by_request(market, settler, generated, finding):
    """Tokens that were generated but not metered, or metered but not generated, are found."""
    events = market.serve(3)
    settler.drain()
    report = run_checks(market.config, market.ledger, generated(events))
    assert [found.name for found in report.findings] == [finding]


DAMAGE = [
    ("UPDATE usage SET completion_tokens = completion_tokens + 1 WHERE leaf_index = 4", "metered_not_issued"),
    ("UPDATE usage SET amount_nanos = amount_nanos + 1 WHERE leaf_index = 4", "rated_not_debited"),
    ("UPDATE transfers SET amount = amount + 1 WHERE code = 'usage' AND seq % 2 = 0", "balance_not_transfers"),
    ("UPDATE transfers SET amount = amount + 1 WHERE code = 'host'", "money_not_conserved"),
    ("DELETE FROM transfers WHERE code = 'contributor' AND amount > 1000000", "microtokens_not_conserved"),
    ("UPDATE accounts SET credits = credits + 5 WHERE name = 'host:hal'", "balance_not_transfers"),
    ("UPDATE accounts SET debits = debits + 5 WHERE name LIKE 'client:%'", "balance_not_transfers"),
    ("UPDATE accounts SET credits = credits + 5 WHERE name LIKE 'clearing:%'", "clearing_not_window"),
    ("UPDATE holds SET state = 'pending' WHERE id LIKE 'req_%'", "held_not_holds"),
    ("UPDATE usage SET body = replace(body, 'acme', 'evil') WHERE leaf_index = 4", "usage_not_in_log"),
    ("UPDATE log_leaves SET digest = 'sha256:0' WHERE leaf_index = 1", "log_root_differs"),
    ("DELETE FROM log_leaves WHERE leaf_index = 1", "log_leaf_missing"),
    ("UPDATE log_checkpoints SET note = replace(note, 'local', 'other')", "checkpoint_invalid"),
    ("DELETE FROM log_checkpoints", "log_not_signed"),
    ("UPDATE usage_totals SET quantity = quantity + 1 WHERE kind = 'cached'", "totals_not_usage"),
    ("UPDATE usage_totals SET day = '2025-01-01'", "totals_not_usage"),
    ("DELETE FROM usage_totals WHERE kind = 'prompt'", "totals_not_usage"),
    ("UPDATE documents SET body = CAST(replace(body, 'pia', 'eva') AS BLOB) WHERE kind = 'terms'", "document_changed"),
    ("DELETE FROM documents WHERE kind = 'price_book'", "document_missing"),
]


@pytest.mark.parametrize(("statement", "finding"), DAMAGE)
def test_each_kind_of_damage_is_named(market, settler, statement, finding):
    """A change behind the ledger's back is found by the check that guards it."""
    market.serve(4)
    settler.drain()
    settler.close_window()
    with market.ledger.store.write() as connection:
        connection.execute(
            statement.replace("replace(body, 'acme', 'evil')", "CAST(replace(body, 'acme', 'evil') AS BLOB)")
        )
    assert finding in [found.name for found in run_checks(market.config, market.ledger).findings]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:1],  # the retired key is not there: what it signed cannot be verified any more
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[0], lines[1], lines[2].replace("until 6", "until 5")],
    ],
)
def test_a_key_file_that_is_not_the_log_s_own_is_found(market, settler, change):
    """log.pub must list the key in use and every retired one as the log's documents name them."""
    for _ in range(2):
        market.serve(3)
        settler.read_key()
        settler.drain()
        rotate_key(market.config, market.ledger)
    path = market.config.log_public_key_path
    assert run_checks(market.config, market.ledger).clean
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    assert "log_keys_differ" in [found.name for found in run_checks(market.config, market.ledger).findings]


def test_a_missing_key_file_is_found(market, settler):
    """By the head that nobody can verify and by the keys that the log names."""
    market.serve(1)
    settler.drain()
    rotate_key(market.config, market.ledger)
    market.config.log_public_key_path.unlink()
    names = [found.name for found in run_checks(market.config, market.ledger).findings]
    assert names == ["checkpoint_invalid", "log_keys_differ"]


def test_the_database_itself_refuses_a_negative_wallet(market):
    """The last line of defence: the table's constraint, whatever the code above it does."""
    with pytest.raises(Exception, match="CHECK constraint"), market.ledger.store.write() as connection:
        connection.execute("UPDATE accounts SET debits = credits + 1 WHERE name = 'client:acme'")


def test_an_expired_hold_of_an_unmetered_request_is_found(market, settler):
    """Tokens generated for a request whose hold expired and whose event never came are not forgotten."""
    event = market.event()
    market.hold(event)
    assert run_checks(market.config, market.ledger, tally([event])).clean
    market.ledger.expire_holds(now_us() + 10**9)
    report = run_checks(market.config, market.ledger, tally([event]))
    assert [found.name for found in report.findings] == ["generated_not_metered"]
