"""A contributor checks a statement offline: every payment by the formula, every receipt in the signed log."""

from __future__ import annotations

import json

import pytest

from metering.canonical import canonical_bytes
from metering.errors import NotIncluded, PeriodInvalid, StatementInvalid
from metering.event import rfc3339
from metering.ledger import now_us
from metering.statement import build_statement
from metering.statement_proof import build_statement_proof, verify_statement_proof


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same tests on both stores."""
    return every_store


@pytest.fixture
def paid(market, settler):
    """Two closed windows with seven requests, and an open one."""
    for count in (3, 4, 1):
        market.serve(count)
        settler.drain()
        if count > 1:
            settler.close_window()
    return market


def public_key(market) -> str:
    return market.config.log_public_key_path.read_text()


@pytest.mark.parametrize("account", ["ada", "bob", "tom", "hal", "facts", "nobody"])
def test_a_proof_holds_for_everyone_in_every_role(paid, account):
    """What verifies is the statement that the ledger gives, and its transfers are its paid totals."""
    data = build_statement_proof(paid.ledger, account, rfc3339(now_us())[:7])
    statement = verify_statement_proof(data, public_key(paid))
    assert statement == build_statement(paid.ledger, account, statement["period"])
    proof = json.loads(data)
    assert [len(window["receipts"]) for window in proof["windows"]] == ([] if account == "nobody" else [3, 4])
    assert "acme" not in data.decode()  # whose requests they were is not told


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("format", lambda proof: proof.pop("windows")),
        ("format", lambda proof: proof["windows"][0]["scores"].update(undeclared=1)),
        ("checkpoint", lambda proof: proof.update(checkpoint=proof["checkpoint"].replace("openledger", "other", 1))),
        ("inclusion", lambda proof: proof["windows"][0]["receipts"][0].update(digest="sha256:" + "0" * 64)),
        ("receipts", lambda proof: proof["windows"][0].update(receipts_root=proof["windows"][1]["receipts_root"])),
        ("payout", lambda proof: proof["windows"][0]["transfers"][0].update(amount=1)),
        ("payout", lambda proof: proof["windows"][1]["scores"].update(ada=0)),
        ("lines", lambda proof: proof["windows"].pop()),
        ("totals", lambda proof: proof["statement"]["totals"].update(paid_nanos=10**9)),
        ("terms", lambda proof: proof["windows"][0]["terms"].update(trainer="tim")),
        ("payout", lambda proof: proof["windows"][0].update(window=2)),
        ("payout", lambda proof: proof["windows"][0]["transfers"][0].update(id="window/9/x")),
        ("lines", lambda proof: proof["statement"]["lines"][0].update(paid_nanos=10**9)),
        ("lines", lambda proof: proof["statement"]["lines"][0].update(paid_microtokens=0)),
        ("lines", lambda proof: proof["statement"]["lines"][0].update(role="trainer")),
        ("lines", lambda proof: proof["statement"]["lines"][0].update(datanet="other")),
        ("lines", lambda proof: proof["statement"]["lines"].clear()),
    ],
)
def test_each_kind_of_forgery_is_named(paid, step, change):
    """The step that fails is the one that guards what was changed."""
    proof = json.loads(build_statement_proof(paid.ledger, "ada"))
    change(proof)
    with pytest.raises(StatementInvalid) as invalid:
        verify_statement_proof(canonical_bytes(proof), public_key(paid))
    assert invalid.value.step == step


def test_bad_periods_and_an_empty_log_are_named(market):
    """PeriodInvalid, NotIncluded."""
    with pytest.raises(PeriodInvalid):
        build_statement_proof(market.ledger, "ada", "never")
    with pytest.raises(NotIncluded):
        build_statement_proof(market.ledger, "ada")
