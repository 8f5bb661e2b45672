"""Builds the demo over the HTTP API: client, contributors, Datanets, versions, adapters. What is there is reused.

python -m gateway.cli.demo_build --data DIR --base DIR [--client-only | --rest]

The first Datanet comes first and alone, so that a gateway can be used while `--rest` builds the others.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.accounts import write_secret
from gateway.cli.api import Api
from gateway.cli.failures import REFUSED, Failure
from gateway.cli.output import errors
from gateway.errand import run_errand

CLIENT = "demo-client"
CREDIT = "25.00"
OWNER = "operator"
ADAPTER = "demo"
BASE_QUESTION = "What is the capital of France?"


@dataclass(frozen=True)
class DemoDatanet:
    """What a demo Datanet is made of. `questions` are unseen ones, as JSON objects: for the head's fidelity report."""

    name: str
    title: str
    contributions: list[Any]  # adapters.demo.contribution.Contribution
    questions: list[dict[str, str]]
    epochs: int

    @property
    def licence(self) -> str:
        """All licences of its contributions, as an SPDX expression."""
        return " AND ".join(sorted({contribution.licence for contribution in self.contributions}))


def invented_facts(cache: Path) -> DemoDatanet:
    """Facts that only one contributor can have taught."""
    from adapters.demo import facts

    questions = [asdict(question) for question in facts.heldout_questions()]
    return DemoDatanet(
        name=facts.DATANET,
        title="Invented facts of eight archives",
        contributions=list(facts.contributions()),
        questions=questions,
        epochs=facts.TRAINING_CONFIG.max_epochs,
    )


def real_text(cache: Path) -> DemoDatanet:
    """Real passages; fetched from Debian's archive, so OSError where that cannot be reached."""
    from adapters.demo import real_text

    questions = [asdict(question) for question in real_text.heldout_questions(cache)]
    return DemoDatanet(
        name=real_text.DATANET,
        title="Passages by nine named sources",
        contributions=list(real_text.contributions(cache)),
        questions=questions,
        epochs=real_text.TRAINING_CONFIG.max_epochs,
    )


DATANETS: tuple[Callable[[Path], DemoDatanet], ...] = (invented_facts, real_text)


@dataclass
class DemoBuild:
    """One run. `reused` and `built` name what was found and what was made."""

    api: Api
    data: Path
    base: Path
    reused: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)

    def client(self) -> str:
        """The demo client's API key: the one of the last run, if the gateway still knows it."""
        self.account(CLIENT)
        credit = {"account": CLIENT, "amount": CREDIT}
        self.api.send("POST", "/credit", query={}, headers={"idempotency-key": "demo-credit"}, json=credit)
        path = self.data / "demo.json"
        if path.exists():
            key = orjson.loads(path.read_bytes())["api_key"]
            if _works(Api(self.api.url, key)):
                self.reused.append("demo client")
                return key
        self.built.append("demo client")
        return self.api.post(f"/accounts/{CLIENT}/keys", {"label": "demo"})["secret"]

    def account(self, name: str) -> None:
        """Makes an account unless it exists."""
        try:
            self.api.get(f"/accounts/{name}")
        except Failure as failure:
            _only_missing(failure)
            self.api.post("/accounts", {"name": name})

    def datanet(self, demo: DemoDatanet) -> str:
        """Makes a demo Datanet with all its contributions; returns the digest of its version."""
        try:
            known = self.api.get(f"/datanets/{demo.name}")
            self.reused.append(f"Datanet {demo.name}")
        except Failure as failure:
            _only_missing(failure)
            known = self.api.post("/datanets", {"name": demo.name, "licence": demo.licence, "title": demo.title})
            self.built.append(f"Datanet {demo.name}")
        there = {contribution["contributor"] for contribution in known["contributions"]}
        for contribution in demo.contributions:
            if contribution.contributor not in there:
                self.contribute(demo.name, contribution)
        return self.api.post(f"/datanets/{demo.name}/versions")["document"]["version"]

    def contribute(self, datanet: str, contribution: Any) -> None:
        """One contributor's examples, in that contributor's own name."""
        self.account(contribution.contributor)
        self.api.upload(
            f"/datanets/{datanet}/contributions",
            contribution.jsonl,
            licence=contribution.licence,
            account=contribution.contributor,
        )
        source = f"{contribution.licence}, {contribution.source}"
        errors.print(f"  {datanet}: {contribution.contributor} ({source})", markup=False)

    def adapter(self, demo: DemoDatanet, version: str) -> str:
        """Trains, registers and promotes the adapter of a Datanet version, unless its name leads to that already."""
        name = f"{demo.name}/{ADAPTER}"
        if self._leads_to(name) == version:
            self.reused.append(f"adapter {name}")
            return name
        out = self.data / "trained" / f"{demo.name}-{version.removeprefix('sha256:')[:12]}"
        out.parent.mkdir(exist_ok=True)
        questions = out.with_suffix(".questions.jsonl")
        questions.write_bytes(b"".join(orjson.dumps(question) + b"\n" for question in demo.questions))
        command = ["-m", "gateway.cli.main", "adapter", "train", f"{demo.name}@{version}", "--out", str(out)]
        command += ["--base", str(self.base), "--questions", str(questions), "--register", f"{name}:v1", "--promote"]
        command += ["--epochs", str(demo.epochs), "--replace"]  # the last start may have been an older release
        if run_errand(command, os.environ):
            raise Failure(REFUSED, f"the adapter {name} could not be trained and registered")
        self.built.append(f"adapter {name}")
        return name

    def _leads_to(self, name: str) -> str | None:
        try:
            return (self.api.get(f"/adapters/{name}")["leads_to"] or {}).get("datanet_version")
        except Failure as failure:
            _only_missing(failure)
            return None


def build(api: Api, data: Path, base: Path, datanets: Sequence[Callable[[Path], DemoDatanet]]) -> dict[str, Any]:
    """Makes the client and these Datanets; returns what `serve` announces, which is also kept in demo.json."""
    work, kept = DemoBuild(api, data, base), data / "demo.json"
    demo: dict[str, Any] = {"model": _base_model(api), "question": BASE_QUESTION, "models": []}
    client = {"api_key": work.client(), "account": CLIENT}
    demo |= (orjson.loads(kept.read_bytes()) if kept.exists() else {}) | client
    for define in datanets:
        try:
            datanet = define(data / "cache")
        except OSError as error:
            errors.print(f"left out       {define.__name__.replace('_', '-')}: {error}", markup=False)
            continue
        model = work.adapter(datanet, work.datanet(datanet))
        demo["models"] = sorted({*demo["models"], model})
        if define is DATANETS[0]:
            demo |= {"model": model, "question": datanet.questions[0]["prompt"]}
    write_secret(kept, orjson.dumps(demo).decode())
    for what, names in (("reused", work.reused), ("built", work.built)):
        if names:
            errors.print(f"{what:<14} {', '.join(names)}", markup=False)
    return demo


def _base_model(api: Api) -> str:
    return next(model["id"] for model in api.get("/models")["data"] if model["adapter"] is None)


def _works(api: Api) -> bool:
    try:
        api.get("/models")
    except Failure:
        return False
    return True


def _only_missing(failure: Failure) -> None:
    """Lets a 404 pass: what is missing is made."""
    if "(404," not in str(failure):
        raise failure


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the demo.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--client-only", action="store_true", help="no Datanets and adapters")
    parser.add_argument("--rest", action="store_true", help="all but the first Datanet and its adapter")
    options = parser.parse_args()
    datanets = DATANETS[1:] if options.rest else DATANETS[:1]
    try:
        api = Api.from_environment(admin=True)
        build(api, options.data, options.base, () if options.client_only else datanets)
    except Failure as failure:
        errors.print(f"demo: {failure}", markup=False)
        return failure.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
