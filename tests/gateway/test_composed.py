"""A composed adapter on a running stack: made by the CLI from registered names, served as one, both are paid."""

import json
from pathlib import Path

import pytest
import torch

from adapters.base import BaseModel
from tests.gateway.engine.recompute import Recomputer
from tests.gateway.engine.served import TOLERANCE
from tests.gateway.packages import PackageWriter
from tests.gateway.stack import Stack, demo_base

pytestmark = pytest.mark.engine

PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def parts(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two registered adapters of two Datanets with one contributor in common; their names."""
    writer, root, names = PackageWriter(BaseModel.from_directory(demo_base())), tmp_path_factory.mktemp("parts"), []
    for account in ("una", "uri", "ute"):
        stack.account(account, credit=None)
    for seed, (datanet, contributors) in enumerate({"sun": ("una", "uri"), "sea": ("uri", "ute")}.items(), start=31):
        assert stack.cli("datanet", "create", datanet, "--licence", "CC0-1.0").returncode == 0
        for account in contributors:
            file = root / f"{account}.jsonl"
            file.write_text(json.dumps({"text": f"{account} saw the {datanet}."}) + "\n")
            assert stack.cli("datanet", "contribute", datanet, str(file), "--account", account).returncode == 0
        made = stack.cli("datanet", "version", datanet, "--json")
        package = writer.write(root / datanet, seed=seed, scale=0.02)
        version = json.loads(made.stdout)["document"]["version"]
        writer.write_head(package, datanet, version, dict.fromkeys(contributors, 100), seed)
        done = stack.cli("adapter", "register", str(package), "--name", f"{datanet}/one")
        assert done.returncode == 0, done.stderr
        names.append(f"{datanet}/one")
    return names


def test_two_registered_adapters_are_served_as_one(stack: Stack, parts: list[str], tmp_path: Path) -> None:
    """Scores are those of the composed head on the served tokens, for contributors of both; the books balance."""
    out = tmp_path / "sum"
    options = ["--out", str(out), "--base", str(demo_base()), "--register", "operator/sum:v1", "--json"]
    done = stack.cli("adapter", "compose", f"{parts[0]}=0.7", f"{parts[1]}=0.3", *options)
    assert done.returncode == 0, done.stderr
    composed = json.loads(done.stdout)
    assert composed["contributors"] == ["una", "uri", "ute"]
    body = {"model": "operator/sum", "messages": PARIS, "temperature": 0, "max_tokens": 10, "return_token_ids": True}
    with stack.http() as http:
        answer = http.post("/chat/completions", json=body).raise_for_status().json()
    assert answer["attribution"]["adapter"] == composed["digest"]
    exact = Recomputer(demo_base()).scores(out, answer["prompt_token_ids"], answer["choices"][0]["token_ids"]).sum(0)
    served = {row["contributor"]: row["score"] / 1e6 for row in answer["attribution"]["contributors"]}
    found = torch.tensor([served[name] for name in composed["contributors"]]).double()
    assert (found - exact).abs().max() <= 10 * TOLERANCE * exact.abs().max()
    shares = {row["contributor"]: row["share_ppm"] for row in answer["attribution"]["contributors"]}
    assert shares == {"una": 350_000, "uri": 500_000, "ute": 150_000}  # unmeasured: 0.7 and 0.3 of equal halves
    stack.receipt(answer["receipt_id"])
    report = stack.check()
    assert report["clean"], report["findings"]
