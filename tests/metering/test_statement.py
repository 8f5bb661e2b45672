"""Statements: what is accrued becomes what is paid."""

from __future__ import annotations

import dataclasses

import pytest

from metering.statement import build_statement, render_statement


@pytest.fixture
def ledger_url(every_store) -> str:
    """The same tests on both stores."""
    return every_store


def test_accrued_becomes_paid_to_the_nano(market, settler):
    """The open window's provisional earnings, by the same formula, are exactly what its close pays."""
    market.serve(5)
    settler.drain()
    before = {name: build_statement(market.ledger, name) for name in ("ada", "bob", "tom", "hal", "facts")}
    settler.close_window()
    for name, earlier in before.items():
        after = build_statement(market.ledger, name)
        assert earlier["totals"]["paid_nanos"] == after["totals"]["accrued_nanos"] == 0
        assert earlier["totals"]["accrued_nanos"] == after["totals"]["paid_nanos"] > 0
        assert earlier["totals"]["accrued_microtokens"] == after["totals"]["paid_microtokens"]
        assert earlier["lines"][0]["net_score_micronats"] == after["lines"][0]["net_score_micronats"]
    assert before["ada"]["lines"][0]["net_score_micronats"] == 5 * 2_500_000
    assert before["bob"]["lines"][0]["net_score_micronats"] == -5 * 700_000


def test_one_person_in_several_roles(market, settler):
    """Roles and adapters are lines of their own; the totals are their sums and equal the accounts."""
    terms = dataclasses.replace(market.terms, trainer="ada", host="ada")
    market.ledger.put_document("terms", terms.encode())
    market.serve(1)
    market.serve(1, terms=terms.digest)
    settler.drain()
    settler.close_window()
    statement = build_statement(market.ledger, "ada")
    assert [line["role"] for line in statement["lines"]] == ["contributor", "contributor", "host", "trainer"]
    credited = sum(
        market.ledger.account_balance(f"{role}:ada", "USD").credits for role in ("contributor", "host", "trainer")
    )
    assert statement["totals"]["paid_nanos"] == credited
    assert statement["lines"][0]["datanet"] == "facts"


def test_the_text_is_readable(market, settler):
    """Paid and accrued money, tokens and the net score in nats appear as exact decimals."""
    market.serve(2)
    settler.drain()
    text = render_statement(build_statement(market.ledger, "bob"))
    assert "contributor  facts" in text
    assert "-1.400000" in text


def test_a_stranger_earned_nothing(market):
    """An unknown account has an empty statement, for any period."""
    assert build_statement(market.ledger, "nobody", "2026-01")["lines"] == []
