"""openledger datanet ..."""

import tarfile
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.api import Api
from gateway.cli.failures import USAGE, Failure
from gateway.cli.output import Json, emit, facts, table

app = typer.Typer(help="Datanets: public data sets with named contributors.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Datanet")]
Account = Annotated[str | None, typer.Option("--account", help="act for this account (operator)")]
ROLES = ("contributors", "trainer", "host", "governance", "treasury")
Split = Annotated[str, typer.Option(help="contributors=600000,trainer=... in ppm, five roles")]
Effective = Annotated[str | None, typer.Option(help="YYYY-MM or YYYY-MM-DD ahead; the next month by default")]


@app.command()
def create(
    name: Name,
    licence: Annotated[str, typer.Option(help="SPDX identifier of contributions that name none")],
    title: Annotated[str | None, typer.Option()] = None,
    description: Annotated[str, typer.Option()] = "",
    split: Annotated[str | None, typer.Option(help="contributors=600000,trainer=... in ppm, five roles")] = None,
    near_duplicates: Annotated[
        str, typer.Option(help="set-aside: versions leave out what repeats an earlier example; or accept. For good")
    ] = "set-aside",
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Create a Datanet that you own."""
    body: dict[str, Any] = {"name": name, "licence": licence, "title": title or name, "description": description}
    if split:
        body["split_ppm"] = parse_split(split)
    body["near_duplicates"] = near_duplicates
    datanet = Api.from_environment().post("/datanets", body, account=account)
    emit(as_json, datanet, facts(datanet))


@app.command()
def policy(
    name: Name,
    split: Split,
    effective: Effective = None,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Change how earnings are split, from a period ahead on (the Datanet's owner). It is an entry of the log."""
    made = Api.from_environment().post(f"/datanets/{name}/policy", split_from(split, effective), account=account)
    emit(
        as_json, made, facts({"digest": made["digest"], **made["document"]}, "digest", "datanet", "set_by", "effective")
    )


@app.command()
def vote(
    name: Name,
    split: Split,
    effective: Effective = None,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Vote, as a contributor, for how earnings are split. More than half of all examples behind it make the policy."""
    made = Api.from_environment().post(f"/datanets/{name}/votes", split_from(split, effective), account=account)
    outcome = f"it made policy {made['policy']['digest']}" if made["policy"] else "no majority yet"
    emit(as_json, made, f"vote {made['digest']} for {made['document']['effective']}: {outcome}")


@app.command()
def contribute(
    name: Name,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="JSON lines: messages, prompt/completion or text")
    ],
    licence: Annotated[str | None, typer.Option(help="SPDX identifier; the Datanet's by default")] = None,
    contributor: Annotated[str | None, typer.Option(help="on behalf of (the Datanet's owner only)")] = None,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Contribute examples: all lines are accepted, or none."""
    document = Api.from_environment().upload(
        f"/datanets/{name}/contributions",
        file.read_bytes(),
        licence=licence,
        contributor=contributor,
        account=account,
    )
    emit(as_json, document, document["digest"])


@app.command()
def withdraw(
    name: Name,
    contribution: Annotated[str, typer.Argument(help="digest")],
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Leave a contribution out of later versions."""
    document = Api.from_environment().delete(f"/datanets/{name}/contributions/{contribution}", account=account)
    emit(as_json, document, f"{contribution} is withdrawn")


@app.command()
def version(name: Name, account: Account = None, as_json: Json = False) -> None:
    """Make the version of what is accepted now (the same one again when nothing changed)."""
    document = Api.from_environment().post(f"/datanets/{name}/versions", account=account)
    emit(as_json, document, document["document"]["version"])


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show a Datanet, its contributions and its versions."""
    datanet = Api.from_environment().get(f"/datanets/{name}")
    emit(as_json, datanet, f"{facts(datanet)}\n\n{_contributors(datanet)}")


@app.command("list")
def list_datanets(as_json: Json = False) -> None:
    """List all Datanets."""
    rows = Api.from_environment().get("/datanets")["data"]
    emit(as_json, rows, table(rows, "name", "owner", "licence", "examples", "latest_version"))


@app.command("near-duplicates")
def near_duplicates(name: Name, as_json: Json = False) -> None:
    """Examples that repeat an earlier one: what the next version sets aside, if the Datanet does so."""
    rows = Api.from_environment().get(f"/datanets/{name}/near-duplicates")["data"]
    columns = ("example", "contributor", "near_duplicate_of", "earlier_contributor", "jaccard_ppm")
    emit(as_json, rows, table(rows, *columns) if rows else f"no example of {name} repeats an earlier one")


@app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Argument(help="directory to write, must not exist; or a .tar file")],
    version: Annotated[str | None, typer.Option(help="version digest; the latest by default")] = None,
    as_json: Json = False,
) -> None:
    """Write a version as files that verify from their content alone."""
    digest = export_version(Api.from_environment(), name, out, version)
    emit(as_json, {"version": digest, "path": str(out)}, f"{digest} written to {out}")


def export_version(api: Api, name: str, out: Path, version: str | None) -> str:
    """Downloads a version and unpacks it, checked; returns its digest."""
    from adapters.export import verify_export

    if out.exists():
        raise Failure(USAGE, f"{out} exists")
    if out.suffix == ".tar":
        return api.download(f"/datanets/{name}/export", out, version=version)["x-openledger-version"]
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as staging:
        archive, unpacked = Path(staging) / "export.tar", Path(staging) / "export"
        api.download(f"/datanets/{name}/export", archive, version=version)
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        digest = verify_export(unpacked)
        unpacked.rename(out)
    return digest


def split_from(split: str, effective: str | None) -> dict[str, Any]:
    """A policy, or a vote for one; the server chooses the period that is not named."""
    body: dict[str, Any] = {"split_ppm": parse_split(split)}
    return body if effective is None else body | {"effective": effective}


def parse_split(text: str) -> dict[str, int]:
    """`role=ppm,...`; the server checks the sum."""
    try:
        return {role: int(ppm) for role, _, ppm in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise Failure(USAGE, f"--split must be {'=ppm,'.join(ROLES)}=ppm") from None


def _contributors(datanet: dict[str, Any]) -> str:
    return "\n".join(f"{examples:>8} examples of {name}" for name, examples in datanet["contributors"].items())
