"""openledger invoice|statement|receipt|verify|check|usage."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.api import Api, data_directory
from gateway.cli.failures import FINDING, REFUSED, USAGE, Failure
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
    as_json: Json = False,
) -> None:
    """The signed receipt of a request."""
    data = fetch_receipt(Api.from_environment(), request_id, wait)
    if out is None:
        typer.echo(data, nl=sys.stdout.isatty())  # redirected, it is the receipt to the byte
        return
    out.write_text(data)
    emit(as_json, {"receipt": str(out), "request_id": request_id}, f"{request_id} written to {out}")


def fetch_receipt(api: Api, request_id: str, wait_seconds: float) -> str:
    """The receipt as the server gives it, once the settler has logged it."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return api.text(f"/receipts/{request_id}")
        except Failure as failure:
            if failure.status != REFUSED or "404" not in str(failure) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a receipt")],
    log_key: Annotated[
        Path | None, typer.Option("--log-key", help="the log's public key; $DATA/log.pub by default")
    ] = None,
    as_json: Json = False,
) -> int:
    """Verify a receipt offline. Exit code 1 when it does not hold."""
    key = log_key or data_directory() / "log.pub"
    try:
        public_key = key.read_text()
    except OSError as error:
        raise Failure(USAGE, f"cannot read the log's public key {key}: {error.strerror}") from None
    result = verify_data(file.read_bytes(), public_key)
    if result["verified"]:
        emit(as_json, result, f"{file} holds: leaf {result['leaf_index']} of a signed tree of {result['tree_size']}")
        return 0
    emit(as_json, result, f"{file} does NOT hold: {result['step']}: {result['detail']}")
    return FINDING


def verify_data(data: bytes, public_key: str) -> dict[str, Any]:
    """The outcome of offline verification, as a document."""
    from metering.errors import NoteInvalid, ReceiptInvalid
    from metering.receipt import verify_receipt

    try:
        verified = verify_receipt(data, public_key)
    except ReceiptInvalid as error:
        return {"verified": False, "step": error.step, "detail": error.detail}
    except NoteInvalid as error:
        return {"verified": False, "step": "log_key", "detail": str(error)}
    return {"verified": True, "leaf_index": verified.leaf_index, "tree_size": verified.tree_size, "body": verified.body}


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
