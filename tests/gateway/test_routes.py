"""The HTTP face of everything that needs no engine."""

import httpx
import pytest

from tests.gateway.conftest import member

JSONL = b'{"text": "The moon is a harsh place."}\n{"text": "Tides follow it."}\n'
Client = httpx.AsyncClient


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and error code; every error has OpenAI's four members."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


async def test_every_answer_has_a_request_id_that_we_minted(operator: Client) -> None:
    """A client's own X-Request-Id does not become the billing id."""
    response = await operator.get("/v1/models", headers={"x-request-id": "mine"})
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-processing-ms"].isdigit()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/a/b"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/datanets"),
        ("POST", "/v1/adapters?name=a/b"),
        ("GET", "/v1/receipts/req_1"),
        ("GET", "/v1/invoices"),
        ("GET", "/v1/admin/check"),
    ],
)
async def test_no_route_answers_without_a_key(operator: Client, method: str, path: str) -> None:
    """Missing and wrong keys are 401."""
    for headers in ({"authorization": ""}, {"authorization": "Bearer sk-ol-wrong"}, {"authorization": "Basic eA=="}):
        assert code(await operator.request(method, path, headers=headers, content=b"{}")) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/accounts", {"name": "bob"}),
        ("GET", "/v1/accounts", None),
        ("POST", "/v1/credit", {"account": "alice", "amount": "1000"}),
        ("GET", "/v1/admin/check", None),
        ("GET", "/v1/accounts/operator", None),
        ("POST", "/v1/accounts/operator/keys", {}),
        ("GET", "/v1/invoices?account=operator", None),
        ("GET", "/v1/statements?account=operator", None),
        ("POST", "/v1/datanets?account=operator", {"name": "x", "licence": "CC0-1.0"}),
    ],
)
async def test_members_act_for_themselves_only(alice: Client, method: str, path: str, body: dict | None) -> None:
    """Operator's commands, and acting for others, are 403."""
    assert code(await alice.request(method, path, json=body)) == (403, "forbidden")


async def test_credit_is_added_once_for_one_key(operator: Client, alice: Client) -> None:
    """A retry changes nothing, another amount under the same key is a conflict."""
    for _ in range(2):
        body = {"account": "alice", "amount": "12.5"}
        added = await operator.post("/v1/credit", json=body, headers={"idempotency-key": "k"})
        assert added.json()["wallet"]["available_nanos"] == 12_500_000_000
    other = {"account": "alice", "amount": "13"}
    refused = await operator.post("/v1/credit", json=other, headers={"idempotency-key": "k"})
    assert code(refused) == (409, "exists_with_other_body")
    wallet = (await alice.get("/v1/accounts/alice")).json()["wallet"]
    assert wallet["available_nanos"] == 12_500_000_000


@pytest.mark.parametrize("amount", ["", "x", "-1", "0", "0.0000000001", "NaN", "Infinity", 12, None])
async def test_credit_is_a_positive_exact_amount(operator: Client, alice: Client, amount: object) -> None:
    """No floats, no fractions of a nano, nothing negative."""
    response = await operator.post("/v1/credit", json={"account": "alice", "amount": amount})
    assert response.status_code in (400, 409)


async def test_a_datanet_from_creation_to_export(operator: Client, alice: Client, tmp_path) -> None:
    """Owned by its creator, contributed to by anybody, exported by everybody."""
    created = await alice.post("/v1/datanets", json={"name": "moon", "licence": "CC0-1.0"})
    assert (created.status_code, created.json()["owner"]) == (201, "alice")
    async with await member(operator, "bob") as bob:
        given = await bob.post("/v1/datanets/moon/contributions", params={"licence": "CC-BY-4.0"}, content=JSONL)
        assert given.status_code == 201, given.text
        again = await bob.post("/v1/datanets/moon/contributions", content=JSONL)
        assert code(again) == (409, "duplicate_example")
        version = (await bob.post("/v1/datanets/moon/versions")).json()["document"]["version"]
        shown = (await bob.get("/v1/datanets/moon")).json()
        assert shown["contributors"] == {"bob": 2}
        assert [one["digest"] for one in shown["versions"]] == [version]
        export = await bob.get("/v1/datanets/moon/export")
        assert export.headers["x-openledger-version"] == version
        assert len(export.content) == int(export.headers["content-length"])
        withdrawn = await bob.delete(f"/v1/datanets/moon/contributions/{given.json()['digest']}")
        assert withdrawn.status_code == 200
    assert (await alice.get("/v1/datanets/moon")).json()["examples"] == 0


async def test_near_duplicates_are_listed_and_left_out_of_versions(operator: Client, alice: Client) -> None:
    """A copy with other capitals is accepted, named with what it repeats, and in no version."""
    await alice.post("/v1/datanets", json={"name": "moon", "licence": "CC0-1.0"})
    await alice.post("/v1/datanets/moon/contributions", content=b'{"text": "The moon is made of rock."}\n')
    async with await member(operator, "bob") as bob:
        await bob.post("/v1/datanets/moon/contributions", content=b'{"text": "The Moon is made of rock!"}\n')
        (pair,) = (await bob.get("/v1/datanets/moon/near-duplicates")).json()["data"]
    assert (pair["contributor"], pair["earlier_contributor"], pair["jaccard_ppm"]) == ("bob", "alice", 1_000_000)
    version = (await alice.post("/v1/datanets/moon/versions")).json()["document"]
    assert set(version["contributors"]) == {"alice"}
    assert version["near_duplicates"]["contributors"] == {"bob": 1}
    refused = await alice.post("/v1/datanets", json={"name": "sun", "licence": "CC0-1.0", "near_duplicates": "maybe"})
    assert code(refused) == (400, "invalid_near_duplicates")


async def test_documents_are_submitted_to_the_log(operator: Client, alice: Client, settings) -> None:
    """Each Datanet act leaves a document that the ledger holds."""
    from metering.config import MeteringConfig
    from metering.ledger import Ledger

    await alice.post("/v1/datanets", json={"name": "moon", "licence": "CC0-1.0"})
    given = await alice.post("/v1/datanets/moon/contributions", content=JSONL)
    ledger = Ledger.open(MeteringConfig(settings.data))
    assert ledger.document(given.json()["digest"]) is not None
    ledger.close()


async def test_names_are_taken_across_accounts_and_datanets(operator: Client, alice: Client) -> None:
    """A model's first name part has one owner."""
    await alice.post("/v1/datanets", json={"name": "moon", "licence": "CC0-1.0"})
    assert code(await operator.post("/v1/accounts", json={"name": "moon"})) == (409, "namespace_taken")
    assert code(await operator.post("/v1/accounts", json={"name": "alice"})) == (409, "account_exists")


async def test_bodies_are_limited(alice: Client) -> None:
    """413 as soon as the limit is passed, for JSON and for uploads."""
    assert code(await alice.post("/v1/chat/completions", content=b" " * 10_001)) == (413, "request_too_large")
    assert code(await alice.post("/v1/datanets/x/contributions", content=b" " * 20_001)) == (413, "request_too_large")
    assert code(await alice.post("/v1/adapters?name=alice/x", content=b" " * 20_001)) == (413, "package_too_large")


async def test_without_engine_nothing_is_admitted_and_nothing_held(operator: Client, alice: Client) -> None:
    """503 with retry-after, a wallet without holds, and an Idempotency-Key that is free again."""
    await operator.post("/v1/credit", json={"account": "alice", "amount": "1"})
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(2):
        response = await alice.post("/v1/chat/completions", json=body, headers={"idempotency-key": "k"})
        assert code(response) == (503, "engine_unavailable")
        assert "retry-after-ms" in response.headers
    assert (await alice.get("/v1/accounts/alice")).json()["wallet"]["held_nanos"] == 0
    health = await alice.get("/healthz")
    assert (health.status_code, health.json()["engine"]) == (503, False)


async def test_a_stopped_journal_stops_admission(operator: Client, alice: Client) -> None:
    """Nothing is generated that could not be metered: 503 with retry-after, before the engine is asked."""
    operator._transport.app.app.state.services.journal.close()  # type: ignore[attr-defined]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    response = await alice.post("/v1/chat/completions", json=body)
    assert code(response) == (503, "store_stopped")
    assert response.headers["retry-after"] == "5"
    assert (await alice.get("/healthz")).json()["journal"] is False


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", (400, "invalid_json")),
        (b'{"model":"nope/x","messages":[{"role":"user","content":"x"}]}', (404, "model_not_found")),
        (b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"priority":1}', (400, "unknown_parameter")),
    ],
)
async def test_bad_requests_are_named_before_the_engine_is_asked(
    alice: Client, content: bytes, expected: tuple[int, str]
) -> None:
    """These do not need an engine to be wrong."""
    assert code(await alice.post("/v1/chat/completions", content=content)) == expected


@pytest.mark.parametrize("path", ["/v1/receipts/req_1", "/nothing", "/log/tile/9", "/v1/models/x"])
async def test_what_is_not_there_is_404_in_the_same_shape(alice: Client, path: str) -> None:
    """Routes, receipts, tiles and models."""
    assert (await alice.get(path)).status_code == 404
    assert code(await alice.get(path))[0] == 404


async def test_models_are_openai_objects(alice: Client) -> None:
    """The base model is listed under its own name, and found by it."""
    [listed] = (await alice.get("/v1/models")).json()["data"]
    assert (listed["id"], listed["object"], listed["owned_by"]) == ("tiny", "model", "base")
    assert (await alice.get("/v1/models/tiny")).json() == listed


async def test_metrics_are_exposed_under_our_prefix(alice: Client) -> None:
    """Routes are labelled by their pattern, not by what was asked for."""
    await alice.get("/v1/models/some/thing")
    text = (await alice.get("/metrics")).text
    assert 'openledger_http_requests_total{method="GET",route="/v1/models/{name:path}",status="404"}' in text
