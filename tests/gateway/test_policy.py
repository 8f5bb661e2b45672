"""A change of a Datanet's policy: served before, paid as promised; served after, paid by the new split."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from adapters.database import Database as RegistryDatabase
from adapters.datanet import DatanetStore
from adapters.policy import DEFAULT_SPLIT_PPM
from adapters.registry import RegisteredAdapter
from gateway.terms import TermsBook
from metering.config import MeteringConfig
from metering.ledger import Ledger
from metering.settler import Settler
from tests.metering.conftest import ADAPTER, BASE, BOOK, Market

ALL_TO_CONTRIBUTORS = {"contributors": 1_000_000, "trainer": 0, "host": 0, "governance": 0, "treasury": 0}


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def adapter(digest: str = ADAPTER, **changes) -> RegisteredAdapter:
    fields = {
        "digest": digest, "directory": Path(), "base": BASE, "rank": 8, "publisher": "pia", "head": None,
        "method": "declared", "fidelity_ppm": 0, "datanet": "facts", "datanet_version": None, "trainer": "tom",
        "host": "hal", "contributors": (), "declared": {"ada": 3, "bob": 1}, "revoked": False, "created_ms": 0,
    }  # fmt: skip
    return RegisteredAdapter(**(fields | changes))


@pytest.fixture
def times() -> list[int]:
    """The gateway's clock, to be set."""
    return [ms("2099-11-20T10:00:00")]


@pytest.fixture
def market(tmp_path) -> Iterator[Market]:
    """A ledger with prices and a client with credit."""
    config = MeteringConfig(data_dir=tmp_path / "data", min_free_bytes=1)
    ledger = Ledger.open(config)
    ledger.put_document("price_book", BOOK.encode())
    ledger.credit("topup-1", "acme", 10**12).require()
    yield Market(config, ledger)
    ledger.close()


@pytest.fixture
def datanets(tmp_path, times) -> DatanetStore:
    store = DatanetStore(RegistryDatabase(tmp_path / "registry.db", clock=lambda: times[0]))
    store.create("facts", owner="olga", licence="CC0-1.0", title="Facts")
    return store


@pytest.fixture
def book(database, datanets, market) -> TermsBook:
    parts = {ADAPTER: adapter()}
    return TermsBook(database, datanets, market.ledger, "hal", parts.__getitem__)


def test_terms_change_when_the_period_begins(book, datanets, times, market, database) -> None:
    """The same terms until its last millisecond, then others with the new split; also those of composed adapters."""
    ledger = market.ledger
    composed = adapter("sha256:" + "c" * 64, datanet=None, trainer=None, composed_of={ADAPTER: 1_000_000})
    before, both = book.of(adapter()), book.of(composed)
    datanets.set_policy("facts", ALL_TO_CONTRIBUTORS, acting="olga", effective="2099-12")
    times[0] = ms("2099-11-30T23:59:59.999")
    assert (book.of(adapter()), book.of(composed)) == (before, both)
    times[0] = ms("2099-12-01T00:00:00")
    after = book.of(adapter())
    assert after.split_ppm == ALL_TO_CONTRIBUTORS
    assert (after.declared, after.adapter) == (before.declared, before.adapter)
    assert book.of(composed).split_ppm == ALL_TO_CONTRIBUTORS != both.split_ppm
    assert ledger.document(before.digest) == before.encode()
    assert ledger.document(after.digest) == after.encode()
    again = TermsBook(database, datanets, ledger, "hal", {ADAPTER: adapter()}.__getitem__)  # after a restart
    assert again.of(adapter()) == after


def test_what_was_served_before_is_paid_as_promised(book, datanets, times, market) -> None:
    """One window with events from before and after the change, the earlier one settled last: each by its own policy."""
    datanets.set_policy("facts", ALL_TO_CONTRIBUTORS, acting="olga", effective="2099-12-01")
    served = {}
    for moment in ("2099-11-30T23:59:59", "2099-12-01T00:00:01"):
        times[0] = ms(moment)
        served[moment] = market.event(terms=book.of(adapter()).digest, head=None, scores={})
    settler = Settler(market.config)
    for event in reversed(served.values()):
        market.journal(event)
        settler.drain()
    settler.close_window()
    settler.close()
    paid = {
        name: market.ledger.account_balance(name, "USD").available
        for name in ("contributor:ada", "contributor:bob", "trainer:tom", "host:hal", "governance:facts", "treasury")
    }
    old = {role: 2161 * ppm // 1_000_000 for role, ppm in DEFAULT_SPLIT_PPM.items()}
    assert paid["contributor:ada"] + paid["contributor:bob"] == old["contributors"] + 2161
    assert [paid[name] for name in ("trainer:tom", "host:hal", "governance:facts", "treasury")] == [
        old[role] for role in ("trainer", "host", "governance", "treasury")
    ]


async def test_over_http(operator: httpx.AsyncClient, alice: httpx.AsyncClient) -> None:
    """The owner states the period; the past and strangers are refused; the entry is in the log's inbox at once."""
    await alice.post("/v1/datanets", json={"name": "rivers", "licence": "CC0-1.0"})
    path = "/v1/datanets/rivers/policy"
    past = await alice.post(path, json={"split_ppm": ALL_TO_CONTRIBUTORS, "effective": "2020-01"})
    assert (past.status_code, past.json()["error"]["code"]) == (400, "retroactive_policy")
    made = await alice.post(path, json={"split_ppm": ALL_TO_CONTRIBUTORS, "effective": "2999-01"})
    assert (made.status_code, made.json()["document"]["effective"]) == (201, "2999-01")
    shown = (await alice.get("/v1/datanets/rivers")).json()
    assert shown["split_ppm"]["contributors"] == 600_000
    assert shown["scheduled"][0] == {
        "digest": made.json()["digest"], "effective": "2999-01", "split_ppm": ALL_TO_CONTRIBUTORS,
    }  # fmt: skip
    document = await operator.get(f"/log/documents/{made.json()['digest']}")
    assert document.json()["previous"] == shown["policy_digest"]


async def test_contributors_vote_over_http(operator: httpx.AsyncClient, alice: httpx.AsyncClient) -> None:
    """A stranger may not; a contributor's majority makes the policy; votes and policies are entries for anyone."""
    await operator.post("/v1/datanets", json={"name": "rivers", "licence": "CC0-1.0"})
    body = {"split_ppm": ALL_TO_CONTRIBUTORS, "effective": "2999-01"}
    refused = await alice.post("/v1/datanets/rivers/votes", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_contributor")
    given = await alice.post("/v1/datanets/rivers/contributions", content=b'{"text":"The Nile is long."}\n')
    assert given.status_code == 201, given.text
    made = (await alice.post("/v1/datanets/rivers/votes", json=body)).json()
    assert made["policy"]["document"]["votes"] == [made["digest"]]
    owner = await operator.post("/v1/datanets/rivers/policy", json=body)
    assert (owner.status_code, owner.json()["error"]["code"]) == (403, "policy_by_vote")
    services = operator._transport.app.app.state.services  # type: ignore[attr-defined]
    settler = Settler(services.metering)
    settler.drain()
    settler.close()
    entries = {
        kind: (await alice.get("/log/entries", params={"type": kind})).json()["data"]
        for kind in ("datanet", "contribution", "vote", "policy", "price_book", "terms", "usage")
    }
    assert [entries[kind][0]["document"].get("voter") for kind in ("vote",)] == ["alice"]
    assert entries["contribution"][0]["document"]["contributor"] == "alice"
    assert [len(entries[kind]) for kind in entries] == [1, 1, 1, 2, 1, 1, 0]
