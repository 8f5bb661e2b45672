"""Requests that name several adapters, on a running stack: scored, metered and paid as one composed adapter."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from adapters.base import BaseModel
from gateway.cli.verify import verify_data
from tests.gateway.engine.recompute import Recomputer
from tests.gateway.engine.served import TOLERANCE
from tests.gateway.packages import RANK, PackageWriter
from tests.gateway.stack import Stack, demo_base

pytestmark = pytest.mark.engine

BASE = "smollm2-135m-instruct"
PARIS = [{"role": "user", "content": "What is the capital of France?"}]
WEIGHTS = {"wind/one": 0.7, "wave/one": 0.3}


@pytest.fixture(scope="module")
def packages(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two registered adapters of two Datanets with one contributor in common: their package directories by name."""
    writer, root = PackageWriter(BaseModel.from_directory(demo_base())), tmp_path_factory.mktemp("combined")
    made = {}
    for account in ("wes", "wim", "wyn"):
        stack.account(account, credit=None)
    for seed, (datanet, contributors) in enumerate({"wind": ("wes", "wim"), "wave": ("wim", "wyn")}.items(), start=41):
        assert stack.cli("datanet", "create", datanet, "--licence", "CC0-1.0").returncode == 0
        for account in contributors:
            file = root / f"{account}.jsonl"
            file.write_text(json.dumps({"text": f"{account} heard the {datanet}."}) + "\n")
            assert stack.cli("datanet", "contribute", datanet, str(file), "--account", account).returncode == 0
        version = json.loads(stack.cli("datanet", "version", datanet, "--json").stdout)["document"]["version"]
        package = writer.write(root / datanet, seed=seed, scale=0.02)
        writer.write_head(package, datanet, version, dict.fromkeys(contributors, 100), seed)
        done = stack.cli("adapter", "register", str(package), "--name", f"{datanet}/one")
        assert done.returncode == 0, done.stderr
        made[f"{datanet}/one"] = package
    return made


def body(**members) -> dict:
    wanted = {"temperature": 0, "max_tokens": 10, "attribution": "tokens", "return_token_ids": True}
    return {"model": BASE, "messages": PARIS, "adapters": WEIGHTS, **wanted, **members}


def combined_scores(answer: dict, packages: dict[str, Path], composed: Path, work: Path) -> torch.Tensor:
    """sum over parts of w_p score_{p,c} [tokens, wes wim wyn] in nats, on the activations of the composed model.

    Each part's own K and P meet its own rows of the composed h = [A_1 x; A_2 x] (parts in the order of their digests);
    nothing of the composed head is read.
    """
    recomputer, parts = Recomputer(demo_base()), list(answer["attribution"]["composed_of"].items())
    prompt, tokens = answer["prompt_token_ids"], answer["choices"][0]["token_ids"]
    total = torch.zeros(len(tokens), 3, dtype=torch.float64)
    for name, columns in {"wind/one": [0, 1], "wave/one": [1, 2]}.items():
        [place] = [at for at, (_, weight_ppm) in enumerate(parts) if weight_ppm == WEIGHTS[name] * 1e6]
        view = shutil.copytree(composed, work / packages[name].name)
        with safe_open(packages[name] / "attribution_head.safetensors", "np") as file:
            K, P, metadata = file.get_tensor("K"), file.get_tensor("P"), file.metadata()
        padded = np.zeros((*K.shape[:3], RANK * len(parts)), "f4")
        padded[..., RANK * place : RANK * (place + 1)] = K
        save_file({"K": padded, "P": P}, view / "attribution_head.safetensors", metadata)
        total[:, columns] += WEIGHTS[name] * recomputer.scores(view, prompt, tokens)
    return total


def test_two_adapters_in_one_request(stack: Stack, packages: dict[str, Path], tmp_path: Path) -> None:
    """Scores are the weighted sum of the parts' on the same activations; the receipt verifies, the parts are named."""
    with stack.http() as http:
        answer = http.post("/chat/completions", json=body()).raise_for_status().json()
        again = http.post("/chat/completions", json=body(adapters=dict(reversed(WEIGHTS.items())))).json()
        shown = http.get(f"/adapters/{answer['model']}").raise_for_status().json()
    parts = {http_digest(stack, name): round(weight * 1e6) for name, weight in WEIGHTS.items()}
    attribution = answer["attribution"]
    assert attribution["composed_of"] == shown["composed_of"] == parts
    assert answer["model"] == again["model"] == attribution["adapter"] == shown["digest"]
    composed = stack.data / "adapters" / answer["model"].removeprefix("sha256:")
    exact = combined_scores(answer, packages, composed, tmp_path)
    tokens = answer["choices"][0]["attribution"]["tokens"]
    served = torch.tensor([[token["scores"][name] for name in ("wes", "wim", "wyn")] for token in tokens]) / 1e6
    assert (served - exact).abs().max() <= 10 * TOLERANCE * exact.abs().max()
    shares = {row["contributor"]: row["share_ppm"] for row in attribution["contributors"]}
    assert shares == {"wes": 350_000, "wim": 500_000, "wyn": 150_000}  # unmeasured: 0.7 and 0.3 of equal halves
    receipt = stack.receipt(answer["receipt_id"])
    verified = verify_data(json.dumps(receipt).encode(), (stack.data / "log.pub").read_text())
    assert verified["verified"], verified
    event = receipt["body"]["event"]["data"]
    assert (event["adapter"], event["model"]) == (answer["model"], answer["model"])
    residents = [row for row in residency(stack) if row["digest"] == answer["model"]]
    assert [(row["names"], row["composed_of"]) for row in residents] == [([], parts)]
    assert stack.check()["clean"]


def test_a_stream_says_the_same(stack: Stack, packages: dict[str, Path]) -> None:
    """Through the SDK's extra_body, chats and completions, streaming or not: one model, one text."""
    options = {"model": BASE, "temperature": 0, "max_tokens": 10, "extra_body": {"adapters": WEIGHTS}}
    whole = stack.sdk().chat.completions.create(messages=PARIS, **options)
    chunks = list(stack.sdk().chat.completions.create(messages=PARIS, stream=True, **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert {chunk.model for chunk in chunks} == {whole.model}
    assert chunks[-1].attribution == whole.attribution | {"contributors": chunks[-1].attribution["contributors"]}
    assert stack.sdk().completions.create(prompt="Paris is", **options).model == whole.model


def test_many_who_ask_first_share_one_build(stack: Stack, packages: dict[str, Path]) -> None:
    """Eight at once for a new combination, a wrong part beside them: one composition, eight answers, one 404."""
    new = {"wind/one": 0.123456, "wave/one": 1}
    with ThreadPoolExecutor(9) as pool, stack.http() as http:
        jobs = [pool.submit(http.post, "/chat/completions", json=body(adapters=new, max_tokens=2)) for _ in range(8)]
        wrong = pool.submit(http.post, "/chat/completions", json=body(adapters=new | {"wind/none": 1}))
        answers = [job.result().raise_for_status().json() for job in jobs]
    assert wrong.result().json()["error"]["code"] == "model_not_found"
    [digest] = {answer["model"] for answer in answers}
    [row] = [row for row in residency(stack) if row["digest"] == digest]
    assert (row["loads"], row["leases"]) == (1, 0)


def test_refusals_are_the_sdks_own(stack: Stack, packages: dict[str, Path]) -> None:
    """A bad weight, and a part that is not served."""
    cases: list[tuple[dict, type[openai.APIStatusError]]] = [
        ({"wind/one": 0, "wave/one": 1}, openai.BadRequestError),
        ({"wind/one": 1, "no/one": 1}, openai.NotFoundError),
    ]
    for weights, kind in cases:
        with pytest.raises(kind) as caught:
            stack.sdk().chat.completions.create(model=BASE, messages=PARIS, extra_body={"adapters": weights})
        assert str(caught.value.param).startswith("adapters")


def residency(stack: Stack) -> list[dict]:
    with stack.http(stack.operator) as http:
        return http.get("/adapters/residency").raise_for_status().json()["data"]


def http_digest(stack: Stack, name: str) -> str:
    with stack.http() as http:
        return http.get(f"/adapters/{name}").raise_for_status().json()["leads_to"]["digest"]
