"""Adapters through HTTP and CLI: registered, attributed, replaced without restart, refused by name, revoked."""

import io
import json
import tarfile
from pathlib import Path

import httpx
import openai
import pytest

from adapters.base import BaseModel
from tests.gateway.packages import PackageWriter
from tests.gateway.stack import Stack, demo_base

pytestmark = pytest.mark.engine

PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def writer() -> PackageWriter:
    return PackageWriter(BaseModel.from_directory(demo_base()))


@pytest.fixture(scope="module")
def facts(stack: Stack) -> tuple[str, str]:
    """A Datanet of two contributors, made by the CLI; its name and version."""
    for name in ("ann", "ben"):
        stack.account(name, credit=None)
    assert stack.cli("datanet", "create", "moon", "--licence", "CC0-1.0").returncode == 0
    for name in ("ann", "ben"):
        file = stack.data / f"{name}.jsonl"
        file.write_text(json.dumps({"text": f"{name} saw the moon."}) + "\n")
        given = stack.cli("datanet", "contribute", "moon", str(file), "--account", name)
        assert given.returncode == 0, given.stderr
    made = stack.cli("datanet", "version", "moon", "--json")
    return "moon", json.loads(made.stdout)["document"]["version"]


def register(stack: Stack, package: Path, name: str, *options: str) -> dict:
    done = stack.cli("adapter", "register", str(package), "--name", name, *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_adapter_with_head_attributes_each_token(
    stack: Stack, writer: PackageWriter, facts: tuple[str, str], tmp_path: Path
) -> None:
    """Token scores sum to the answer's, shares to a million; stream and whole agree; the receipt commits to them."""
    package = writer.write(tmp_path / "p", seed=1)
    writer.write_head(package, *facts, {"ann": 300, "ben": 100})
    register(stack, package, "moon/seer:v1")
    options = {"model": "moon/seer", "messages": PARIS, "temperature": 0, "max_tokens": 12}
    whole = stack.sdk().chat.completions.create(**options, extra_body={"attribution": "tokens"})
    rows = {row["contributor"]: row for row in whole.attribution["contributors"]}
    tokens = whole.choices[0].attribution["tokens"]
    assert len(tokens) == whole.usage.completion_tokens
    for name in ("ann", "ben"):
        assert sum(token["scores"][name] for token in tokens) == rows[name]["score"] != 0
    assert {name: row["share_ppm"] for name, row in rows.items()} == {"ann": 750_000, "ben": 250_000}
    stream = stack.sdk().chat.completions.create(**options, stream=True)
    assert list(stream)[-1].attribution == whole.attribution
    body = stack.receipt(whole.receipt_id)["body"]
    assert body["event"]["data"]["scores"] == {name: row["score"] for name, row in rows.items()}
    assert body["shares"]["provisional_ppm"] == {"ann": 750_000, "ben": 250_000}


def test_contributors_earn(stack: Stack, writer: PackageWriter, facts: tuple[str, str], tmp_path: Path) -> None:
    """What a client pays for a declared adapter arrives at its contributors; both laws hold."""
    package = writer.write(tmp_path / "p", seed=2)
    writer.write_head(package, *facts, {"ann": 300, "ben": 100})
    register(stack, package, "moon/earner")
    answer = stack.sdk().chat.completions.create(model="moon/earner", messages=PARIS, max_tokens=10)
    stack.receipt(answer.receipt_id)
    earned = {}
    for name in ("ann", "ben"):
        statement = json.loads(stack.cli("statement", "--account", name, "--json").stdout)
        lines = [line for line in statement["lines"] if line["adapter"] == answer.attribution["adapter"]]
        earned[name] = sum(line["accrued_nanos"] + line["paid_nanos"] for line in lines)
    assert earned["ann"] == pytest.approx(3 * earned["ben"], abs=3)
    assert earned["ben"] > 0
    assert stack.check()["clean"]


def test_a_tag_is_replaced_without_restart_and_without_stale_weights(
    stack: Stack, writer: PackageWriter, tmp_path: Path
) -> None:
    """The same name answers with the new weights at once; the old tag still has the old ones."""
    answers = {}
    for number in (1, 2):
        package = writer.write(tmp_path / str(number), seed=10 + number)
        adapter = register(stack, package, f"operator/swap:v{number}", "--promote")
        answer = stack.sdk().chat.completions.create(model="operator/swap", messages=PARIS, temperature=0, max_tokens=8)
        assert answer.attribution["adapter"] == adapter["digest"]
        answers[number] = answer.choices[0].message.content
    assert answers[1] != answers[2]
    old = stack.sdk().chat.completions.create(model="operator/swap:v1", messages=PARIS, temperature=0, max_tokens=8)
    assert old.choices[0].message.content == answers[1]
    assert {"operator/swap", "operator/swap:v1", "operator/swap:v2"} <= {m.id for m in stack.sdk().models.list()}


def test_a_revoked_adapter_is_not_served(stack: Stack, writer: PackageWriter, tmp_path: Path) -> None:
    """404 from the next request on, and gone from the list."""
    register(stack, writer.write(tmp_path / "p", seed=20), "operator/gone")
    stack.sdk().models.retrieve("operator/gone")
    assert stack.cli("adapter", "revoke", "operator/gone").returncode == 0
    with pytest.raises(openai.NotFoundError):
        stack.sdk().chat.completions.create(model="operator/gone", messages=PARIS)
    assert "operator/gone" not in [model.id for model in stack.sdk().models.list()]


def test_a_weak_but_live_adapter_passes_the_canary_and_a_dead_one_does_not(
    stack: Stack, writer: PackageWriter, tmp_path: Path
) -> None:
    """A delta that the engine rounds away is a zero delta, although no tensor is zero; nothing stays registered."""
    register(stack, writer.write(tmp_path / "weak", seed=30, scale=1e-3), "operator/weak")
    dead = writer.write(tmp_path / "dead", seed=31, scale=1e-30)
    refused = stack.cli("adapter", "register", str(dead), "--name", "operator/dead")
    assert refused.returncode == 3
    assert "zero_delta" in refused.stderr
    assert stack.cli("adapter", "show", "operator/dead").returncode == 3
    assert stack.check()["clean"]


def test_refusals_keep_their_names(stack: Stack, writer: PackageWriter, tmp_path: Path) -> None:
    """400 with the refusal's code; another's namespace is 403."""

    def send(entries: dict[str, bytes], name: str = "operator/bad", key: str | None = None) -> tuple[int, str]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, content in entries.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        with stack.http(key or stack.operator) as http:
            response: httpx.Response = http.post("/adapters", params={"name": name}, content=out.getvalue())
        return response.status_code, response.json()["error"]["code"]

    package = writer.write(tmp_path / "p", seed=40)
    files = {path.name: path.read_bytes() for path in package.iterdir()}
    weights = "adapter_model.safetensors"
    assert send({**files, "adapter_model.bin": b"x"}) == (400, "pickle_file")
    assert send({**files, "../escape": b"x"}) == (400, "unsafe_path")
    assert send({**files, weights: files[weights][:-10]}) == (400, "bad_safetensors")
    assert send({"adapter_config.json": files["adapter_config.json"]}) == (400, "file_missing")
    assert send(files, name="moonless/x")[0] == 404
    assert send(files, key=stack.account("intruder")) == (403, "not_owner")


def test_residency_is_shown_to_publishers_and_the_operator(stack: Stack, writer: PackageWriter, tmp_path: Path) -> None:
    """A tenant sees where its own adapters are; the operator sees all, by name, and the engine's memory."""
    keys = {name: stack.account(name) for name in ("polly", "quinn")}
    for seed, (name, key) in enumerate(keys.items(), start=90):
        package = writer.write(tmp_path / name, seed=seed)
        assert stack.cli("adapter", "register", str(package), "--name", f"{name}/own:v1", key=key).returncode == 0
        stack.sdk(key).completions.create(model=f"{name}/own", prompt="Hi", max_tokens=1)
    shown = json.loads(stack.cli("adapter", "residency", "--json", key=keys["polly"]).stdout)
    [row] = shown["data"]
    assert (row["names"], row["publisher"], row["place"]) == (["polly/own:v1"], "polly", "slot")
    assert (row["loads"], row["hits"] > 0, row["bytes"] > 0, row["leases"]) == (1, True, True, 0)
    assert "host_bytes" not in shown
    with stack.http(stack.operator) as http:
        everyone = http.get("/adapters/residency").json()
        of_quinn = http.get("/adapters/residency", params={"account": "quinn"}).json()["data"]
    assert {"polly/own:v1", "quinn/own:v1"} <= {name for one in everyone["data"] for name in one["names"]}
    assert 0 < everyone["host_bytes"] <= everyone["host_limit_bytes"]
    assert [one["publisher"] for one in of_quinn] == ["quinn"]
    with stack.http(keys["polly"]) as http:
        assert http.get("/adapters/residency", params={"account": "quinn"}).status_code == 403
        described = http.get(stack.url.removesuffix("/v1") + "/openapi.json").json()["paths"]
    assert "account" in described["/v1/adapters/residency"]["get"]["description"]
    table = stack.cli("adapter", "residency")
    assert (table.returncode, "polly/own:v1" in table.stdout) == (0, True)
