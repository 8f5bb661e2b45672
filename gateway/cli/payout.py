"""openledger claim register|fetch: a contributor's payout address and claim files, over the gateway's HTTP API."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.api import Api
from gateway.cli.chain import Keystore, failures
from gateway.cli.output import Json, emit, facts

Account = Annotated[str | None, typer.Option("--account", help="another account (operator)")]


def register(account: Account = None, keystore: Keystore = None, as_json: Json = False) -> None:
    """Have your earnings paid at your key's address: signs a binding here and records it at the gateway."""
    api = Api.from_environment(admin=account is not None)
    known = api.get("/payout_address", account=account)
    with failures():
        from metering.chain.binding import sign_binding
        from metering.chain.keys import Signer

        signer = Signer.load(os.environ, keystore)
        binding = sign_binding(signer, known["account"], known["chain_id"], known["next_sequence"])
    recorded = api.post("/payout_address", binding.document())
    emit(as_json, recorded, facts(recorded, "account", "address", "chain_id", "sequence", "digest"))


def fetch(
    account: Account = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the claim files")] = Path("."),
    as_json: Json = False,
) -> None:
    """Download your claim files, checked; `openledger claim --file FILE` has them paid."""
    documents = Api.from_environment(admin=account is not None).get("/claims", account=account)["data"]
    with failures():
        from metering.chain.claimfile import parse_claim

        paths = []
        out.mkdir(parents=True, exist_ok=True)
        for document in documents:
            claim = parse_claim(document)  # its proof leads to its root
            paths.append(out / f"claim-{claim.chain_id}-{claim.epoch}-{claim.address[2:10]}.json")
            paths[-1].write_text(json.dumps(document, indent=2) + "\n")
    emit(as_json, [str(path) for path in paths], "\n".join(map(str, paths)))
