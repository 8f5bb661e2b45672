"""openledger invoice|statement|receipt|check|usage."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.api import Api
from gateway.cli.failures import FINDING, REFUSED, Failure
from gateway.cli.output import Json, emit, facts, money

Account = Annotated[str | None, typer.Option("--account", help="another account (operator)")]
Period = Annotated[str | None, typer.Option(help="YYYY-MM or YYYY-MM-DD; this month by default")]


def invoice(account: Account = None, period: Period = None, as_json: Json = False) -> None:
    """What you used and owe in a period."""
    _document("/invoices", account, period, as_json)


def statement(account: Account = None, period: Period = None, as_json: Json = False) -> None:
    """What you earned, by Datanet and adapter."""
    _document("/statements", account, period, as_json)


def usage(account: Account = None, period: Period = None, as_json: Json = False) -> None:
    """Your wallet, and what you used in a period."""
    used = Api.from_environment(admin=account is not None).get("/usage", account=account, period=period)
    wallet = used["wallet"]
    lines = {part: money(wallet[f"{part}_nanos"], wallet["currency"]) for part in ("available", "held", "debits")}
    emit(as_json, used, facts({"account": used["account"], **lines}))


def receipt(
    request_id: Annotated[str, typer.Argument(help="receipt_id of an answer")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="write it to a file")] = None,
    wait: Annotated[float, typer.Option(help="seconds to wait until it is settled and logged")] = 15.0,
    witnessed: Annotated[bool, typer.Option("--witnessed", help="under a checkpoint with cosignatures")] = False,
    as_json: Json = False,
) -> None:
    """The signed receipt of a request."""
    data = fetch_receipt(Api.from_environment(), request_id, wait, witnessed)
    if out is None:
        typer.echo(data, nl=sys.stdout.isatty())  # redirected, it is the receipt to the byte
        return
    out.write_text(data)
    emit(as_json, {"receipt": str(out), "request_id": request_id}, f"{request_id} written to {out}")


def fetch_receipt(api: Api, request_id: str, wait_seconds: float, witnessed: bool = False) -> str:
    """The receipt as the server gives it, once the settler has logged it."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return api.text(f"/receipts/{request_id}", **({"witnessed": True} if witnessed else {}))
        except Failure as failure:
            if failure.status != REFUSED or "404" not in str(failure) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def check(as_json: Json = False) -> int:
    """Prove both conservation laws and every invariant (operator). Exit code 1 on any finding."""
    report = Api.from_environment(admin=True).get("/admin/check")
    if report["clean"]:
        text = "clean\n" + facts(report["totals"])
    else:
        text = "\n".join(f"{finding['name']}: {finding['detail']}" for finding in report["findings"])
    emit(as_json, report, text)
    return 0 if report["clean"] else FINDING


def _document(path: str, account: str | None, period: str | None, as_json: bool) -> None:
    api = Api.from_environment(admin=account is not None)
    if as_json:
        emit(True, api.get(path, account=account, period=period), "")
    else:
        emit(False, None, api.text(path, account=account, period=period, format="text"))
