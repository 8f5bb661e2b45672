"""A contributor elsewhere registers its payout address and fetches its claim files."""

import httpx
import pytest

from gateway.cli.main import run
from metering.chain.claimfile import parse_claim
from metering.chain.epoch import build_epoch
from metering.chain.keys import Signer
from metering.ledger import FUNDING, Transfer
from tests.gateway.conftest import member
from tests.metering.chain.test_epoch import DEPLOYMENT

KEY = "0x" + "4c" * 32
Client = httpx.AsyncClient


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def services(operator: Client):
    """A gateway whose operator has deployed the contracts."""
    held = operator._transport.app.app.state.services  # type: ignore[attr-defined]
    DEPLOYMENT.save(held.settings.data / "chain.json")
    return held


def sign(account: str, sequence: int = 1, chain_id: int = DEPLOYMENT.chain_id) -> dict:
    from metering.chain.binding import sign_binding

    signer = Signer.load({"OPENLEDGER_CHAIN_KEY": KEY}, None)
    return sign_binding(signer, account, chain_id, sequence).document()


def earn(services, name: str, nanos: int) -> None:
    services.ledger.open_account(FUNDING, "USD", overdraft=True)
    services.ledger.open_account(f"contributor:{name}", "USD", overdraft=False).require()
    services.ledger.transfer(Transfer("earn", FUNDING, f"contributor:{name}", "USD", nanos, "credit")).require()


async def test_from_address_to_claim(alice: Client, services) -> None:
    """Nothing known, a signed binding, an epoch of the operator's, and the claim file with its proof."""
    shown = (await alice.get("/v1/payout_address")).json()
    assert (shown["address"], shown["next_sequence"], shown["chain_id"]) == (None, 1, 31337)
    assert code(await alice.get("/v1/claims")) == (404, "payout_address_unknown")
    made = await alice.post("/v1/payout_address", json=sign("alice"))
    assert (made.status_code, made.json()["account"]) == (201, "alice")
    assert code(await alice.get("/v1/claims")) == (404, "nothing_published")
    shown = (await alice.get("/v1/payout_address")).json()
    assert (shown["address"], shown["next_sequence"]) == (made.json()["address"], 2)
    earn(services, "alice", 5_000_500)
    build_epoch(services.ledger, DEPLOYMENT, 0)
    [claim] = (await alice.get("/v1/claims")).json()["data"]
    parsed = parse_claim(claim)
    assert (parsed.address, parsed.cumulative_units, parsed.epoch) == (shown["address"], 5_000, 1)


async def test_what_is_refused(operator: Client, alice: Client, services) -> None:
    """Another's account, no signature, a replayed, forged or foreign one: each by name, and nothing is recorded."""
    async with await member(operator, "bob") as bob:
        assert code(await bob.post("/v1/payout_address", json=sign("alice"))) == (403, "forbidden")
        assert code(await bob.get("/v1/claims?account=alice")) == (403, "forbidden")
    unsigned = {**sign("alice"), "signature": None}
    assert code(await alice.post("/v1/payout_address", json=unsigned)) == (403, "forbidden")
    for body in (
        {**sign("alice"), "address": "0x" + "a1" * 20},
        {**sign("alice"), "sequence": 2},
        sign("alice", 2),
        sign("alice", chain_id=1),
        {**sign("alice"), "tip": 1},
        {"account": "alice", "signature": "0x00"},
    ):
        assert code(await alice.post("/v1/payout_address", json=body)) == (400, "binding_invalid")
    assert (await alice.get("/v1/payout_address")).json()["binding"] is None
    assert (await operator.post("/v1/payout_address", json=unsigned)).status_code == 201  # on the operator's word
    assert code(await alice.post("/v1/payout_address", json=sign("alice"))) == (400, "binding_invalid")
    assert (await alice.post("/v1/payout_address", json=sign("alice", 2))).status_code == 201
    assert code(await operator.post("/v1/payout_address", json={**unsigned, "sequence": 3})) == (400, "binding_invalid")


async def test_without_a_chain(alice: Client) -> None:
    """A gateway that pays nothing on chain says so."""
    for path in ("/v1/payout_address", "/v1/claims"):
        assert code(await alice.get(path)) == (404, "chain_not_deployed")


async def test_the_commands(alice: Client, services, tmp_path, monkeypatch, capsys) -> None:
    """`claim register` signs with the key of the environment; `claim fetch` writes files that `claim --file` takes."""
    import asyncio

    loop = asyncio.get_running_loop()

    def request(method: str, url: str, **options) -> httpx.Response:
        options.pop("timeout"), options["headers"].pop("authorization")
        asked = alice.request(method, url, **options)
        return asyncio.run_coroutine_threadsafe(asked, loop).result(30)

    monkeypatch.setattr(httpx, "request", request)
    monkeypatch.setenv("OPENLEDGER_URL", "http://gateway/v1")
    monkeypatch.setenv("OPENLEDGER_API_KEY", "sk-ol-x")
    monkeypatch.setenv("OPENLEDGER_CHAIN_KEY", KEY)
    assert await asyncio.to_thread(run, ["claim", "fetch", "--out", str(tmp_path)]) == 3
    assert await asyncio.to_thread(run, ["claim", "register"]) == 0
    earn(services, "alice", 7_000)
    build_epoch(services.ledger, DEPLOYMENT, 0)
    assert await asyncio.to_thread(run, ["claim", "fetch", "--out", str(tmp_path)]) == 0
    [file] = tmp_path.glob("claim-31337-1-*.json")
    assert str(file) in capsys.readouterr().out
