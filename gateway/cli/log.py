"""openledger log: the transparency log as anyone sees it, and its operator's and witnesses' duties."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from gateway.cli.api import DEFAULT_URL, data_directory, refused
from gateway.cli.failures import FINDING, UNREACHABLE, USAGE, Failure
from gateway.cli.output import Json, emit, facts, table
from gateway.cli.verify import read_policy, read_public_keys

if TYPE_CHECKING:
    from metering.log_copy import VerifiedLog

log = typer.Typer(help="The public log: read it, copy it, cosign it, change its key.", no_args_is_help=True)

Source = Annotated[str | None, typer.Option("--from", help="the gateway's URL; OPENLEDGER_URL, OPENAI_BASE_URL")]
Data = Annotated[Path | None, typer.Option("--data", help="data directory; $DATA or ./data")]
PEOPLE = ("contributor", "trainer", "publisher", "owner", "made_by", "set_by", "revoked_by", "withdrawn_by", "host")
SUBJECTS = ("datanet", "name", "adapter", "contribution", "version")
TIMEOUT_SECONDS = 60.0


@log.command("entries")
def list_entries(
    kind: Annotated[str | None, typer.Option("--type", help="contribution, training, adapter, policy, ...")] = None,
    after: Annotated[int, typer.Option(help="behind this leaf")] = -1,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    source: Source = None,
    as_json: Json = False,
) -> None:
    """Who contributed, who trained, who computed, who tuned: all entries but usage."""
    query: dict[str, Any] = {"type": kind} if kind else {}
    answer = _read(source, "entries", **query, after=after, limit=limit)
    rows = json.loads(answer)["data"]
    shown = [
        {**row, "by": _first(row["document"], PEOPLE), "of": _first(row["document"], SUBJECTS), "digest": row["digest"]}
        for row in rows
    ]
    emit(as_json, rows, table(shown, "index", "type", "of", "by", "digest"))


@log.command("show")
def show(digest: Annotated[str, typer.Argument(help="sha256:...")], source: Source = None) -> None:
    """A public document, byte for byte, after checking its digest."""
    from metering.canonical import digest as digest_of

    body = _read(source, f"documents/{digest}")
    if digest_of(body) != digest:
        raise Failure(FINDING, f"the server's document is {digest_of(body)}")
    typer.echo(body.decode())


@log.command("key")
def key(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="file for the keys")] = None,
    trusted: Annotated[Path | None, typer.Option(help="keys known before: they must lead to these")] = None,
    source: Source = None,
) -> None:
    """The log's public keys; with --trusted only if a key that you trust handed over to them."""
    from metering.errors import NoteInvalid
    from metering.note import NoteVerifier

    text = _read(source, "key").decode()
    try:
        NoteVerifier(text)  # each retired key signed the one above it
        known = trusted.read_text().split()[:1] if trusted else []
    except (NoteInvalid, OSError) as error:
        raise Failure(FINDING if isinstance(error, NoteInvalid) else USAGE, str(error)) from None
    if trusted and not {line.split(" ")[0] for line in text.split("\n")} & set(known):
        raise Failure(FINDING, f"the key in {trusted} does not lead to the log's key")
    if out:
        out.write_text(text)
    typer.echo(f"keys written to {out}" if out else text.rstrip("\n"))


@log.command("fetch")
def fetch(
    directory: Annotated[Path, typer.Argument(help="folder of the copy")],
    log_key: Annotated[Path | None, typer.Option("--log-key", help="the log's public keys; $DATA/log.pub")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="a witness policy")] = None,
    source: Source = None,
    as_json: Json = False,
) -> None:
    """Copy the whole log, or bring a copy up to date, and verify it: it must extend what the copy had."""
    from metering.errors import LogInvalid
    from metering.log_copy import CHECKPOINT, accept_head, fetch_log, verify_log

    believed = read_policy(policy)
    keys = read_public_keys(log_key, believed)
    head = directory / CHECKPOINT
    saved = [head.read_text()] if head.exists() else []
    try:
        fetch_log(lambda path: _read(source, path), directory)
        found = verify_log(directory, keys, saved=saved, policy=believed, name=f"new-{CHECKPOINT}")
    except LogInvalid as error:
        raise Failure(FINDING, f"{error}; the copy's checkpoint was not changed") from None
    accept_head(directory, found.checkpoint.size)
    emit(as_json, _document(found), f"{directory} holds: {found.checkpoint.size} entries of {found.checkpoint.origin}")


@log.command("rotate-key")
def rotate_key(data: Data = None, as_json: Json = False) -> None:
    """Retire the log's key at its present size (operator, on the ledger's machine). What it signed stays good."""
    from metering.errors import MeteringError
    from metering.log_key import rotate_key as rotate

    try:
        with _Ledger(data) as (config, ledger):
            document = rotate(config, ledger)
    except (MeteringError, OSError) as error:
        raise Failure(USAGE, f"{type(error).__name__}: {error}") from None
    emit(as_json, document, facts(document, "previous", "until", "key", "digest", "leaf_index"))


@log.command("cosign")
def cosign(
    policy: Annotated[Path, typer.Option("--policy", help="its witnesses, with their URLs")],
    every: Annotated[float | None, typer.Option(help="go on, once in so many seconds")] = None,
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Have witnesses cosign the newest checkpoint (operator, on the ledger's machine). Exit code 1 without quorum."""
    from dataclasses import asdict

    from metering.cosigning import collect_cosignatures
    from metering.errors import MeteringError, NoteInvalid
    from metering.tiles import published_checkpoint

    believed = read_policy(policy)
    assert believed is not None
    while True:
        try:
            with _Ledger(data) as (_, ledger):
                asked = collect_cosignatures(ledger, list(believed.witnesses.values()))
                note = published_checkpoint(ledger)
        except MeteringError as error:
            raise Failure(USAGE, f"{type(error).__name__}: {error}") from None
        try:
            believed.check(note)
            quorum = True
        except NoteInvalid:
            quorum = False
        lines = [f"{one.witness}: {one.failure or f'cosigned {one.size} leaves'}" for one in asked]
        emit(as_json, {"quorum": quorum, "asked": [asdict(one) for one in asked]}, "\n".join(lines) or "nobody to ask")
        if every is None:
            return 0 if quorum else FINDING
        time.sleep(every)


@log.command("witness")
def witness(
    directory: Annotated[Path, typer.Argument(help="folder for the witness's key and what it has seen")],
    name: Annotated[str, typer.Option(help="the witness's name, such as witness.example/w1")],
    log_key: Annotated[list[Path], typer.Option("--log-key", help="public keys of a log to witness")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8100,
) -> None:
    """Be a witness (C2SP tlog-witness): cosign a log's heads as long as each extends the one before."""
    from metering.errors import NoteInvalid
    from metering.witness import Witness, serve

    try:
        served = Witness(directory, name, "\n".join(path.read_text() for path in log_key))
        server = serve(served, host, port, time.time)
    except (NoteInvalid, OSError) as error:
        raise Failure(USAGE, str(error)) from None
    address = f"http://{host}:{server.server_address[1]}"
    typer.echo(f"witness {name} {served.public_key} {address}")  # a line of a policy, but for its first name
    try:
        server.serve_forever()
    finally:
        server.server_close()


def _read(source: str | None, path: str, **query: Any) -> bytes:
    """A public file of the log; it needs no key."""
    url = source or os.environ.get("OPENLEDGER_URL") or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    url = url.rstrip("/").removesuffix("/v1")
    try:
        answer = httpx.get(f"{url}/log/{path}", params=query, timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise Failure(UNREACHABLE, f"no answer from {url}: {error}") from None
    if answer.status_code >= 400:
        raise refused(answer)
    return answer.content


def _first(document: dict[str, Any] | None, names: tuple[str, ...]) -> Any:
    return next((document[name] for name in names if document.get(name)), None) if document else None


def _document(found: VerifiedLog) -> dict[str, Any]:
    head = found.checkpoint
    return {"verified": True, "origin": head.origin, "tree_size": head.size, "entries": dict(found.entries)}


class _Ledger:
    """The ledger of a data directory, closed again."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory or data_directory()

    def __enter__(self) -> Any:
        from metering.config import MeteringConfig
        from metering.ledger import Ledger

        if not self._directory.is_dir():
            raise Failure(USAGE, f"{self._directory} is no data directory")
        config = MeteringConfig.from_environment(self._directory, os.environ)
        self._ledger = Ledger.open(config)
        return config, self._ledger

    def __exit__(self, *arguments: object) -> None:
        self._ledger.close()
