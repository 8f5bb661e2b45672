"""A gateway without engine (stores, routes and errors are real), over a tiny base model."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from gateway.app import create_app
from gateway.config import Settings
from gateway.database import Database
from metering.settler import Settler
from tests.metering.conftest import BASE_TERMS, BOOK, TERMS, Market

NOVEMBER_2025_US = 1_762_041_600_000_000  # the 2nd


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "gateway.db")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model directory that the registry accepts and no engine has to load."""
    path = tmp_path_factory.mktemp("base") / "tiny"
    path.mkdir()
    rng = np.random.default_rng(0)
    tensors = {"model.embed_tokens.weight": rng.normal(size=(32, 16)).astype("f4")}
    for layer in range(2):
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = rng.normal(size=(16, 24)).astype("f4")
    save_file(tensors, path / "model.safetensors")
    config = {"hidden_size": 16, "vocab_size": 32, "num_hidden_layers": 2, "model_type": "llama"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(data=tmp_path / "data", base=str(tiny_base), max_body_bytes=10_000, max_upload_bytes=20_000)


@pytest.fixture
async def operator(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of a running application, with the operator's key."""
    app = create_app(settings)
    inner = app.app  # type: ignore[attr-defined]
    async with inner.router.lifespan_context(inner):
        key = settings.operator_key_file.read_text().strip()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://gateway",
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            yield client


@pytest.fixture
async def alice(operator: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """The same application, seen by the member account `alice`."""
    async with await member(operator, "alice") as client:
        yield client


async def member(operator: httpx.AsyncClient, name: str) -> httpx.AsyncClient:
    """A client of a new member account."""
    created = await operator.post("/v1/accounts", json={"name": name})
    assert created.status_code == 201, created.text
    key = (await operator.post(f"/v1/accounts/{name}/keys", json={})).json()["secret"]
    transport = operator._transport
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers={"authorization": f"Bearer {key}"})


@pytest.fixture
async def events(operator: httpx.AsyncClient, alice: httpx.AsyncClient, monkeypatch) -> list:
    """Three requests of alice, settled and paid out in a month that is long over."""
    services = operator._transport.app.app.state.services  # type: ignore[attr-defined]
    await operator.post("/v1/credit", json={"account": "alice", "amount": "1"})
    for kind, document in (("price_book", BOOK), ("terms", TERMS), ("terms", BASE_TERMS)):
        services.ledger.put_document(kind, document.encode())
    made = Market(services.metering, services.ledger).serve(3, tenant="alice")
    monkeypatch.setattr("metering.settler.now_us", lambda: NOVEMBER_2025_US)
    settler = Settler(services.metering)
    settler.drain()
    settler.close_window()
    settler.close()
    return made
