"""Builds the demo over the HTTP API: client, contributors, Datanets, versions, adapters. What is there is reused.

python -m gateway.cli.demo_build --data DIR --base DIR [--client-only]
"""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
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
DATANETS = ("adapters.demo.facts", "adapters.demo.real_text")
BASE_QUESTION = "What is the capital of France?"


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

    def datanet(self, module: ModuleType) -> str:
        """Makes a demo Datanet with all its contributions; returns the digest of its version."""
        name = module.DATANET
        try:
            known = self.api.get(f"/datanets/{name}")
            self.reused.append(f"Datanet {name}")
        except Failure as failure:
            _only_missing(failure)
            title = (module.__doc__ or name).strip().splitlines()[0]
            known = self.api.post("/datanets", {"name": name, "licence": module.LICENCE, "title": title})
            self.built.append(f"Datanet {name}")
        there = {contribution["contributor"] for contribution in known["contributions"]}
        for contribution in module.contributions():
            self.account(contribution.contributor)
            if contribution.contributor in there:
                continue
            self.api.upload(
                f"/datanets/{name}/contributions",
                contribution.jsonl,
                licence=contribution.licence,
                account=contribution.contributor,
            )
            errors.print(f"  {name}: {contribution.contributor} ({contribution.licence}, {contribution.source})")
        return self.api.post(f"/datanets/{name}/versions")["document"]["version"]

    def adapter(self, datanet: str, version: str) -> str:
        """Trains, registers and promotes the adapter of a Datanet version, unless its name leads to that already."""
        name = f"{datanet}/{ADAPTER}"
        if self._leads_to(name) == version:
            self.reused.append(f"adapter {name}")
            return name
        out = self.data / "trained" / f"{datanet}-{version.removeprefix('sha256:')[:12]}"
        command = ["-m", "gateway.cli.main", "adapter", "train", f"{datanet}@{version}", "--out", str(out)]
        command += ["--base", str(self.base), "--register", f"{name}:v1", "--promote"]
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


def build(api: Api, data: Path, base: Path, client_only: bool) -> dict[str, Any]:
    """Makes the demo and returns what `serve` announces; the same is written to demo.json."""
    work = DemoBuild(api, data, base)
    demo: dict[str, Any] = {
        "api_key": work.client(),
        "account": CLIENT,
        "model": _base_model(api),
        "question": BASE_QUESTION,
    }
    models: list[str] = []
    for module in () if client_only else demo_modules():
        models.append(work.adapter(module.DATANET, work.datanet(module)))
        if len(models) == 1:
            demo |= {"model": models[0], "question": module.test_questions()[0].prompt}
    demo["models"] = models
    write_secret(data / "demo.json", orjson.dumps(demo).decode())
    for what, names in (("reused", work.reused), ("built", work.built)):
        if names:
            errors.print(f"{what:<14} {', '.join(names)}", markup=False)
    return demo


def demo_modules() -> Iterator[ModuleType]:
    """The modules that define demo Datanets: DATANET, LICENCE, contributions()."""
    for name in DATANETS:
        yield importlib.import_module(name)


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
    options = parser.parse_args()
    try:
        build(Api.from_environment(admin=True), options.data, options.base, options.client_only)
    except Failure as failure:
        errors.print(f"demo: {failure}", markup=False)
        return failure.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
