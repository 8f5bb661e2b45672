"""openledger audit: scores one served request again, here and now, and says how far what was served is from exact."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from gateway.cli.api import Api, data_directory
from gateway.cli.failures import FINDING, USAGE, Failure
from gateway.cli.money import fetch_receipt
from gateway.cli.output import Json, emit, errors, facts, table

GOOD = ("ok", "unmeasured")
SCORERS = ("trace", "in_run", "ekfac", "fisher", "gradient", "retrained")
Account = Annotated[str | None, typer.Option("--account", help="another account (operator)")]


class AuditGroup(TyperGroup):
    """`openledger audit RECEIPT` is short for `openledger audit run RECEIPT`."""

    def resolve_command(self, context: Any, arguments: list[str]) -> Any:
        """A first word that is no command is a receipt."""
        if arguments and not arguments[0].startswith("-") and self.get_command(context, arguments[0]) is None:
            arguments = ["run", *arguments]
        return super().resolve_command(context, arguments)


app = typer.Typer(cls=AuditGroup, help="Score served requests again, exactly.", no_args_is_help=True)


@app.command()
def run(
    receipt: Annotated[str, typer.Argument(help="receipt_id of an answer, or a receipt's file")],
    text: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help='JSON: {"request": as sent, "answer": as received}'),
    ] = None,
    base: Annotated[Path | None, typer.Option(help="base model directory; $DATA/base by default")] = None,
    packages: Annotated[Path | None, typer.Option(help="installed packages; $DATA/adapters by default")] = None,
    traces: Annotated[Path | None, typer.Option(help="directory of training traces; $DATA/trained by default")] = None,
    datanet: Annotated[
        Path | None, typer.Option(help="export of the Datanet version: for all scorers but trace and in_run")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help=", ".join(SCORERS))] = None,
    as_json: Json = False,
) -> int:
    """Score one request again: served against exact, per contributor. Exit code 1 on drift or a changed text."""
    data = data_directory()
    event = _event(receipt)
    if event["data"]["adapter"] is None or event["data"]["head"] is None:
        raise Failure(USAGE, f"{event['id']} was answered without attribution head: nothing was scored (head_missing)")
    if scorer not in (None, *SCORERS):
        raise Failure(USAGE, f"there is no exact scorer {scorer!r}")
    if datanet is not None and not datanet.exists():
        raise Failure(USAGE, f"there is no export at {datanet} (datanet_missing)")
    base = base or data / "base"
    kept = _kept(text, event["id"], data)
    where = {"works": traces or data / "trained", "export_dir": datanet, "scorer": scorer}
    found = _audit(event, kept, base, packages or data / "adapters", where)
    emit(as_json, found, _drawn(found))
    return 0 if found["status"] in GOOD else FINDING


@app.command("list")
def list_results(
    adapter: Annotated[str | None, typer.Option(help="digest")] = None,
    limit: Annotated[int, typer.Option()] = 20,
    as_json: Json = False,
) -> None:
    """List the newest sampled requests that were audited (operator)."""
    rows = Api.from_environment(admin=True).get("/audits", adapter=adapter, limit=limit)["data"]
    emit(as_json, rows, table(rows, "request_id", "status", "scorer", "tokens", "correlation", "detail"))


@app.command()
def summary(as_json: Json = False) -> int:
    """Show audits per adapter: correlation beside the report, and alarms. Exit code 1 while an alarm stands."""
    shown = Api.from_environment().get("/audits/summary")
    emit(as_json, shown, table(shown["adapters"], "adapter", "statuses", "window", "correlation", "reported", "alarm"))
    if not as_json and not shown["enabled"]:
        errors.print(f"nothing is audited: {shown['reason']}", markup=False)
    return FINDING if any(adapter["alarm"] for adapter in shown["adapters"]) else 0


@app.command("opt-out")
def opt_out(account: Account = None, as_json: Json = False) -> None:
    """Keep your requests out of sampled audits; those that wait are forgotten."""
    _consent(False, account, as_json)


@app.command("opt-in")
def opt_in(account: Account = None, as_json: Json = False) -> None:
    """Let your requests be sampled again."""
    _consent(True, account, as_json)


def _consent(sampled: bool, account: str | None, as_json: bool) -> None:
    api = Api.from_environment(admin=account is not None)
    shown = api.send("PUT", "/audits/consent", query={"account": account}, json={"sampled": sampled}).json()
    emit(as_json, shown, facts(shown, "account", "sampled"))


def _event(receipt: str) -> dict[str, Any]:
    """The usage event of a receipt, from a file or the gateway; `openledger verify` proves it. Raises Failure."""
    from metering.canonical import canonical_bytes
    from metering.errors import CanonicalError, EventInvalid
    from metering.event import decode_event

    path = Path(receipt)
    content = path.read_text() if path.is_file() else fetch_receipt(Api.from_environment(), receipt, 15.0)
    try:
        event = json.loads(content)["body"]["event"]
        decode_event(canonical_bytes(event))
    except (ValueError, KeyError, TypeError, CanonicalError, EventInvalid):
        raise Failure(USAGE, f"{receipt} is no receipt") from None
    return event


def _kept(text: Path | None, request_id: str, data: Path) -> dict[str, Any]:
    """What the client kept; without it, an answer that was stored for its Idempotency-Key on this machine."""
    if text is not None:
        try:
            kept = json.loads(text.read_text())
        except ValueError as error:
            raise Failure(USAGE, f"{text} is not JSON: {error}") from None
        if not isinstance(kept, dict):
            raise Failure(USAGE, f'{text} is not an object with "request" and "answer"')
        return kept if "answer" in kept else {"answer": kept}
    path, answer = data / "gateway.db", None
    if path.is_file():
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            stored = database.execute("SELECT body FROM answers WHERE request_id = ? AND status = 200", (request_id,))
            row = stored.fetchone()
        answer = json.loads(row[0]) if row and row[0].startswith(b"{") else None  # not a stream
    if answer is None:
        raise Failure(USAGE, f"no answer of {request_id} is stored here: give --text (text_missing)")
    return {"answer": answer}


def _audit(
    event: dict[str, Any], kept: dict[str, Any], base: Path, packages: Path, where: dict[str, Any]
) -> dict[str, Any]:
    from adapters.errors import AdaptersError
    from gateway.audit.rescoring import Bench
    from gateway.audit.tokens import TextMismatch, TextMissing, find_tokens

    def tokenizer() -> Any:
        from adapters.training.dataset import load_tokenizer

        return load_tokenizer(base)

    adapter = event["data"]["adapter"]
    try:
        tokens = find_tokens(kept, event, tokenizer)
        bench = Bench.load(adapter, packages / adapter.removeprefix("sha256:"), base, **where)
        result, rows = bench.audit(event["id"], tokens.prompts, tokens.choices, event["data"]["scores"])
    except TextMissing as error:
        raise Failure(USAGE, f"{error} (text_missing)") from None
    except TextMismatch as error:
        raise Failure(FINDING, f"{error} (text_mismatch)") from None
    except ImportError as error:
        raise Failure(USAGE, f"an audit needs {error.name}, which is not installed here") from None
    except (AdaptersError, OSError) as error:
        code = error.code if isinstance(error, AdaptersError) else "not_readable"
        raise Failure(USAGE, f"{error} ({code})") from error
    members = {name: value for name, value in vars(result).items() if name not in ("moments", "audited_ms")}
    return {**members, "prompt_is_committed": tokens.prompt_is_committed, "contributors": rows}


def _drawn(found: dict[str, Any]) -> str:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("contributor")
    for column in ("served", "head, recomputed", f"exact ({found['scorer']})"):
        drawn.add_column(f"{column}, nats", justify="right")
    for row in sorted(found["contributors"], key=lambda row: -row["served"]):
        drawn.add_row(row["contributor"], *(f"{row[name] / 1e6:.6f}" for name in ("served", "recomputed", "exact")))
    console = Console(highlight=False, width=120)
    with console.capture() as capture:
        console.print(drawn)
    lines = [
        f"adapter            {found['adapter']}",
        f"tokens             {found['tokens']}"
        + ("" if found["prompt_is_committed"] else "  (the receipt does not commit to the prompt)"),
        f"per-token Pearson  {_interval(found['correlation'])}",
        f"fidelity report    {_interval(found['reported'])}",
        f"served against head  off by {found['served_error_ppm'] / 10_000:.4f}% of the largest",
        f"{found['status']}{': ' + found['detail'] if found['detail'] else ''}",
    ]
    return capture.get() + "\n" + "\n".join(lines)


def _interval(estimate: dict[str, int] | None) -> str:
    if estimate is None:
        return "not measured with this scorer"
    value, low, high = (estimate[name] / 1e6 for name in ("ppm", "low_ppm", "high_ppm"))
    return f"{value:.3f}  [{low:.3f}, {high:.3f}]  of {estimate['count']}"
