"""Which adapters a request may combine, and what it gets: names resolved when it arrives, refusals by name."""

import asyncio
import io
import json
from pathlib import Path

import httpx
import pytest

from adapters.archive import write_archive
from adapters.base import BaseModel
from adapters.compose import compose
from adapters.package import Package
from gateway.accounts import Caller
from gateway.catalog import ServedModel
from gateway.composed_model import composed_model
from gateway.composed_price import covers
from gateway.errors import GatewayError, InsufficientCredit
from gateway.parameters import parse
from gateway.services import Services
from metering.pricebook import Prices, Tier
from tests.gateway.packages import PackageWriter

DEAR = Prices(prompt_nanos=1_000, cached_nanos=1_000, completion_nanos=1_000)
NAMES = [f"operator/{name}" for name in "abcde"]


@pytest.fixture
async def services(operator: httpx.AsyncClient, tiny_base: Path, tmp_path: Path) -> Services:
    """Open stores with five registered adapters of rank 4, and a rich operator."""
    services: Services = operator._transport.app.app.state.services  # type: ignore[attr-defined]
    await operator.post("/v1/credit", json={"account": "operator", "amount": "1"})
    writer = PackageWriter(BaseModel.from_directory(tiny_base))
    for seed, name in enumerate(NAMES):
        package = writer.write(tmp_path / str(seed), seed)
        services.registry.register(f"{name}:v1", package, acting="operator")
        services.registry.promote(name, "v1", acting="operator")
    return services


def caller_of(services: Services, account: str = "operator") -> Caller:
    secret = services.settings.operator_key_file.read_text().strip()
    found = services.accounts.authenticate(secret)
    return Caller(**{**vars(found), "account": account})


async def ask(services: Services, adapters: dict, model: str | None = None, account: str = "operator") -> ServedModel:
    body = {"model": model or services.catalog.base.name, "prompt": "hi", "adapters": adapters}
    return await composed_model(services, caller_of(services, account), parse("text", json.dumps(body).encode(), 1))


def price(services: Services, monkeypatch: pytest.MonkeyPatch, adapter: str, prices: Prices) -> None:
    monkeypatch.setitem(services.prices.adapters, adapter, prices)  # type: ignore[arg-type]


def compose_names(services: Services, out: Path, *names: str) -> Package:
    """The composition of registered adapters, in `out`."""
    parts = [(services.registry.resolve(name).directory, 1_000_000) for name in names]
    return compose(parts, services.registry.base, out)


async def refusal(*arguments, **named) -> tuple[int, str | None, str | None]:
    with pytest.raises(GatewayError) as caught:
        await ask(*arguments, **named)
    return caught.value.status, caught.value.code, caught.value.param


async def test_any_order_and_any_name_is_the_same_model(services: Services) -> None:
    """One model under its digest, its terms in the ledger, its composition in the log: made by the first who asked."""
    asked = [{NAMES[0]: 0.7, NAMES[1]: 0.3}, {NAMES[1]: 0.3, f"{NAMES[0]}:v1": 0.70}] * 4
    models = await asyncio.gather(*(ask(services, weights) for weights in asked))
    assert all(model == models[0] for model in models)
    model = models[0]
    assert model.adapter is not None
    assert (model.name, model.engine_name) == (model.adapter.digest, model.adapter.directory.name)
    assert sorted(model.adapter.composed_of.values()) == [300_000, 700_000]
    assert services.ledger.document(model.terms.digest) == model.terms.encode()
    [composition] = [p for p in model.adapter.directory.iterdir() if p.name == "composition.json"]
    with services.ledger.store.read() as connection:
        kinds = connection.execute("SELECT kind FROM documents WHERE body = ?", (composition.read_bytes(),))
    assert kinds == [("composition",)]
    other = await ask(services, {NAMES[0]: 0.3, NAMES[1]: 0.7})
    assert other.name != model.name


async def test_names_are_resolved_when_a_request_arrives(services: Services, tiny_base: Path, tmp_path: Path) -> None:
    """Promoting another digest makes another composition; revoking a part ends all that hold it."""
    weights = {NAMES[0]: 1, NAMES[1]: 1}
    before = await ask(services, weights)
    package = PackageWriter(BaseModel.from_directory(tiny_base)).write(tmp_path / "new", 77)
    new = services.registry.register(f"{NAMES[0]}:v2", package, acting="operator").adapter
    services.registry.promote(NAMES[0], "v2", acting="operator")
    after = await ask(services, weights)
    assert after.name != before.name
    services.registry.revoke(new.digest, acting="operator")
    assert await refusal(services, weights) == (404, "model_not_found", "adapters")
    assert await ask(services, {f"{NAMES[0]}:v1": 1, NAMES[1]: 1}) == before


async def test_what_cannot_be_combined_is_refused_by_name(services: Services, monkeypatch) -> None:
    """Names that are not served, the base model as a part, another model, ranks over the limit, a dear part."""
    two = {NAMES[0]: 0.7, NAMES[1]: 0.3}
    assert await refusal(services, {NAMES[0]: 1, "operator/none": 1}) == (404, "model_not_found", "adapters")
    base = services.catalog.base.name
    assert await refusal(services, {NAMES[0]: 1, base: 1}) == (404, "model_not_found", "adapters")
    assert await refusal(services, two, NAMES[0]) == (400, None, "model")
    assert await refusal(services, {NAMES[0]: 1, f"{NAMES[0]}:v1": 1}) == (400, "bad_composition", "adapters")
    assert await refusal(services, dict.fromkeys(NAMES, 1)) == (400, "rank_too_high", "adapters")
    price(services, monkeypatch, services.registry.resolve(NAMES[1]).digest, DEAR)
    assert await refusal(services, two) == (400, "part_priced_apart", "adapters")
    assert services.registry.database.row("SELECT count(*) FROM compositions") == (0,)


async def test_a_registered_composition_costs_no_less_than_its_parts(
    services: Services, operator: httpx.AsyncClient, tmp_path: Path, monkeypatch
) -> None:
    """Neither registered nor served while a part is dearer, at whatever depth; both once it has a price as high."""
    composed = compose_names(services, tmp_path / "sum", NAMES[0], NAMES[1])
    services.registry.register("operator/sum", composed.directory, acting="operator")
    nested = compose_names(services, tmp_path / "nested", "operator/sum", NAMES[2])
    price(services, monkeypatch, services.registry.resolve(NAMES[1]).digest, DEAR)
    body = {"model": "operator/sum", "prompt": "hi"}
    refused = await operator.post("/v1/completions", json=body)
    archive = io.BytesIO()
    write_archive(nested.directory, archive)
    upload = await operator.post("/v1/adapters", params={"name": "operator/nested"}, content=archive.getvalue())
    for answer, param in ((refused, "model"), (upload, "model")):
        assert answer.status_code == 400
        assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("part_priced_apart", param)
    assert await refusal(services, {"operator/sum": 1, NAMES[2]: 1}) == (400, "part_priced_apart", "adapters")
    price(services, monkeypatch, services.registry.resolve("operator/sum").digest, DEAR)
    assert (await operator.post("/v1/completions", json=body)).status_code == 503  # nothing is refused, no engine runs


async def test_a_part_that_costs_less_may_be_combined(services: Services, monkeypatch) -> None:
    """At the price of any adapter the mixture is dearer than it; tiers count from the volumes at which they begin."""
    price(services, monkeypatch, services.registry.resolve(NAMES[1]).digest, Prices(9, 9, 9))
    assert (await ask(services, {NAMES[0]: 0.7, NAMES[1]: 0.3})).adapter
    plain, tiered = Prices(5, 5, 5), Prices(5, 5, 5, {"prompt": (Tier(100, 4),)})
    assert covers(plain, tiered)
    assert not covers(tiered, plain)
    assert not covers(Prices(5, 5, 4), plain)


async def test_only_who_can_pay_has_something_composed(services: Services, alice: httpx.AsyncClient) -> None:
    """Without credit what is there is found, and nothing is made; over HTTP the refusal has OpenAI's shape."""
    two = {NAMES[0]: 0.7, NAMES[1]: 0.3}
    with pytest.raises(InsufficientCredit):
        await ask(services, two, account="alice")
    made = await ask(services, two)
    assert await ask(services, two, account="alice") == made
    body = {"model": services.catalog.base.name, "prompt": "hi", "adapters": {NAMES[0]: 0.7, NAMES[1]: 7.1234567}}
    answer = await alice.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "7.1234567 is no weight: more than 0, at most 100, to 6 decimals",
        "type": "invalid_request_error",
        "param": f"adapters.{NAMES[1]}",
        "code": "bad_composition",
    }
    shown = await alice.get(f"/v1/adapters/{made.name}")
    assert sorted(shown.json()["composed_of"].values()) == [300_000, 700_000]
