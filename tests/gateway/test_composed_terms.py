"""Terms of composed adapters: everyone gets what the parts' terms give, weighted."""

from pathlib import Path

import pytest

from adapters.registry import RegisteredAdapter
from gateway.composed_terms import composed_terms
from metering.terms import Terms, decode_terms
from metering.windows import TermsTotals, payouts

DIGEST = "sha256:" + "d" * 64
AMOUNT = 1_000_000_000


def part(name: str, split: tuple[int, int, int, int, int], declared: dict[str, int], **members: str | None) -> Terms:
    roles = ("contributors", "trainer", "host", "governance", "treasury")
    named: dict = {"trainer": f"trainer-of-{name}", "datanet": name, "datanet_version": DIGEST} | members
    return Terms(
        adapter=DIGEST,
        head=None,
        method="declared",
        fidelity_ppm=0,
        base=DIGEST,
        publisher="pia",
        declared=declared,
        split_ppm=dict(zip(roles, split, strict=True)),
        host="hal",
        **named,
    )


def adapter() -> RegisteredAdapter:
    absent = dict.fromkeys(("head", "datanet", "datanet_version", "trainer", "host"))
    return RegisteredAdapter(
        digest=DIGEST,
        directory=Path(),
        base=DIGEST,
        rank=8,
        publisher="pia",
        method="declared",
        fidelity_ppm=0,
        contributors=(),
        declared={"ann": 1},
        revoked=False,
        created_ms=0,
        composed_of={"a": 1, "b": 1},
        **absent,
    )


FIRST = part("facts", (600_000, 150_000, 150_000, 50_000, 50_000), {"ann": 3, "bob": 1})
SECOND = part("myths", (800_000, 0, 100_000, 100_000, 0), {"bob": 1, "cat": 0}, trainer=None)


def paid(terms: Terms, amount_nanos: int) -> dict[str, int]:
    return {p.account: p.amount for p in payouts(terms, TermsTotals(amount_nanos=amount_nanos), "USD") if p.amount}


@pytest.mark.parametrize("weights", [(700_000, 300_000), (1, 2)])
def test_everyone_is_paid_what_the_parts_would_pay(weights):
    """Unmeasured, 1.00 under the composed terms pays as W_a under the first and W_b under the second."""
    terms = composed_terms(adapter(), list(zip((FIRST, SECOND), weights, strict=True)), "hal")
    expected: dict[str, float] = {}
    for one, weight in zip((FIRST, SECOND), weights, strict=True):
        for account, amount in paid(one, AMOUNT * weight // sum(weights)).items():
            expected[account] = expected.get(account, 0) + amount
    found = paid(terms, AMOUNT)
    assert found.keys() - {"residue"} == expected.keys() - {"residue"}
    for account in expected.keys() - {"residue"}:
        assert abs(found[account] - expected[account]) <= 1_000, account  # splits are whole ppm
    assert (terms.trainer, terms.datanet, terms.host) == ("trainer-of-facts", None, "hal")
    assert terms.holders.keys() == {"governance"}
    assert terms.declared["cat"] == 0
    assert decode_terms(terms.encode()) == terms


def test_parts_of_one_datanet_and_trainer_need_no_holders():
    """The same holders in both parts: terms like those of a trained adapter."""
    terms = composed_terms(adapter(), [(FIRST, 700_000), (FIRST, 300_000)], "hal")
    assert (terms.holders, terms.split_ppm, terms.datanet) == ({}, FIRST.split_ppm, "facts")
    assert {n: w * 4 for n, w in terms.declared.items()} == {"ann": 3 * 600_000 * 10**6, "bob": 600_000 * 10**6}
