"""openledger adapter ..."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from gateway.cli.api import Api, data_directory
from gateway.cli.composing import compose_locally
from gateway.cli.datanet import export_version
from gateway.cli.failures import USAGE, Failure
from gateway.cli.heads import bank
from gateway.cli.heads import head as fit_head
from gateway.cli.output import Json, emit, errors, facts, table
from gateway.cli.training import LocalRun

app = typer.Typer(help="Adapters: train, register, list, show, promote, revoke, residency.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="namespace/adapter")]
Account = Annotated[str | None, typer.Option("--account", help="act for this account (operator)")]
BLOCK_BYTES = 1 << 20


@app.command()
def train(
    datanet: Annotated[str, typer.Argument(help="DATANET or DATANET@VERSION")],
    out: Annotated[Path | None, typer.Option(help="package directory; trained/<datanet> by default")] = None,
    base: Annotated[Path | None, typer.Option(help="base model directory; $DATA/base by default")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    epochs: Annotated[int | None, typer.Option(help="at most this many")] = None,
    rank: Annotated[int | None, typer.Option("--rank", "-r")] = None,
    train_a: Annotated[
        bool, typer.Option("--train-a", help="train A too, at a lower learning rate; else it stays as drawn")
    ] = False,
    learning_rate_ppm: Annotated[int | None, typer.Option(help="of AdamW, in millionths")] = None,
    trainer: Annotated[str, typer.Option(help="account that trains")] = "operator",
    host: Annotated[str, typer.Option(help="account whose machine it is")] = "operator",
    questions: Annotated[
        Path | None,
        typer.Option(exists=True, help="JSON lines of prompt, answer, value, contributor: for the fidelity report"),
    ] = None,
    head: Annotated[bool, typer.Option(help="fit an attribution head after training")] = True,
    replace: Annotated[
        bool, typer.Option(help="start over where an unfinished run had other settings or code")
    ] = False,
    register: Annotated[str | None, typer.Option(help="namespace/adapter[:tag] to register under when done")] = None,
    promote: Annotated[bool, typer.Option(help="let the bare name lead to it")] = False,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Train a LoRA adapter on a Datanet version, on this machine, and fit its attribution head."""
    api = Api.from_environment()
    name, _, version = datanet.partition("@")
    out = out or Path("trained") / name
    base = base or data_directory() / "base"
    wanted = {"max_epochs": epochs, "r": rank, "train_a": train_a, "learning_rate_ppm": learning_rate_ppm}
    overrides = {name: value for name, value in wanted.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "export"
        export_version(api, name, export, version or None)
        done = LocalRun(export, base, out, seed, overrides, trainer, host, questions, head, replace).train()
    if register:
        done["registered"] = upload_package(api, out, register, None, account)
        if promote:
            promote_to(api, register, done["registered"]["digest"], account)
    emit(as_json, done, facts(done))


@app.command()
def register(
    path: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="package directory")],
    name: Annotated[str, typer.Option(help="namespace/adapter[:tag]")],
    declared: Annotated[str | None, typer.Option(help='weights by contributor as JSON: {"alice": 2, "bob": 1}')] = None,
    promote: Annotated[bool, typer.Option(help="let the bare name lead to it")] = False,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Upload a PEFT LoRA package; it is served under its name when this returns."""
    api = Api.from_environment()
    adapter = upload_package(api, path, name, declared, account)
    if promote:
        promote_to(api, name, adapter["digest"], account)
    emit(as_json, adapter, facts(adapter))


@app.command()
def compose(
    parts: Annotated[list[str], typer.Argument(help="NAME=WEIGHT each; a registered name, a digest or a directory")],
    out: Annotated[Path, typer.Option(help="package directory to write")],
    base: Annotated[Path | None, typer.Option(help="base model directory; $DATA/base by default")] = None,
    register: Annotated[str | None, typer.Option(help="namespace/adapter[:tag] to register under")] = None,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Add adapters up, weighted, into one: served as one LoRA, attributed to the contributors of all."""
    local = register is None and all(Path(part.rpartition("=")[0]).is_dir() for part in parts)
    api = None if local else Api.from_environment()
    done = compose_locally(api, parts, base or data_directory() / "base", out)
    if done["head"] is None:
        errors.print("a part has no attribution head, so the whole has none: it pays its declared weights")
    if api is not None and register is not None:
        done["registered"] = upload_package(api, out, register, None, account)
    emit(as_json, done, facts(done))


app.command("head")(fit_head)
app.command("bank")(bank)


@app.command("list")
def list_adapters(namespace: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """List adapter names and what they lead to."""
    rows = Api.from_environment().get("/adapters", namespace=namespace)["data"]
    emit(as_json, rows, table(rows, "name", "owner", "promoted", "tags"))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="namespace/adapter[:tag], or a digest")], as_json: Json = False
) -> None:
    """Show a name and its adapter: base, head, method, fidelity, Datanet version, terms."""
    shown = Api.from_environment().get(f"/adapters/{name}")
    emit(as_json, shown, facts(shown.get("leads_to") or shown))


@app.command()
def promote(
    name: Name,
    to: Annotated[str, typer.Argument(help="tag or digest")],
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Let the bare name lead to a tag or a digest."""
    shown = promote_to(Api.from_environment(), name, to, account)
    emit(as_json, shown, f"{shown['name']} leads to {to}")


@app.command()
def revoke(
    adapter: Annotated[str, typer.Argument(help="digest, or a name")], account: Account = None, as_json: Json = False
) -> None:
    """Stop an adapter from being served, under every name."""
    body = {"digest" if adapter.startswith("sha256:") else "name": adapter}
    revoked = Api.from_environment().post("/adapters/revoke", body, account=account)
    emit(as_json, revoked, f"{revoked['digest']} is revoked")


@app.command()
def residency(
    account: Annotated[str | None, typer.Option("--account", help="of this publisher only (operator)")] = None,
    as_json: Json = False,
) -> None:
    """Show which adapters are in the engine's slots, in host memory or on disk."""
    shown = Api.from_environment().get("/adapters/residency", account=account)
    rows = [{**row, "names": ", ".join(row["names"]) or row["digest"]} for row in shown["data"]]
    emit(as_json, shown, table(rows, "names", "place", "pinned", "leases", "bytes", "hits", "loads", "last_load_ms"))


def upload_package(api: Api, path: Path, name: str, declared: str | None, account: str | None) -> dict[str, Any]:
    """Packs a package directory and streams it to the gateway."""
    from adapters.errors import AdaptersError
    from adapters.package import pack

    with tempfile.TemporaryFile() as archive:
        try:
            left_out = pack(path, archive)
        except AdaptersError as error:
            raise Failure(USAGE, f"{path}: {error.message} ({error.code})") from error
        if left_out:
            errors.print(f"not part of a package, left out: {', '.join(left_out)}")
        archive.seek(0, os.SEEK_SET)
        return api.upload("/adapters", _blocks(archive), name=name, declared=declared, account=account)


def promote_to(api: Api, name: str, to: str, account: str | None) -> dict[str, Any]:
    """Promotes the bare name of namespace/adapter[:tag]."""
    return api.post("/adapters/promote", {"name": name.partition(":")[0], "to": to}, account=account)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block
