"""openledger dispute|billing: contesting receipts, and the operator's invoices and credit notes."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli.api import Api
from gateway.cli.failures import FINDING, REFUSED, USAGE, Failure
from gateway.cli.output import Json, emit, facts, money, table

Account = Annotated[str | None, typer.Option("--account", help="another account (operator)")]
Reason = Annotated[str, typer.Option("--reason", help="kept on record")]
FORMATS = {".csv": "csv", ".html": "html", ".pdf": "pdf", ".json": "json", ".txt": "text"}
NOTE_FORMATS = (".html", ".pdf", ".json")


class DisputeGroup(TyperGroup):
    """`openledger dispute RECEIPT` is short for `openledger dispute open RECEIPT`."""

    def resolve_command(self, context: Any, arguments: list[str]) -> Any:
        """A first word that is no command is a receipt."""
        if arguments and not arguments[0].startswith("-") and self.get_command(context, arguments[0]) is None:
            arguments = ["open", *arguments]
        return super().resolve_command(context, arguments)


dispute = typer.Typer(cls=DisputeGroup, help="Contest a receipt: its amount is frozen.", no_args_is_help=True)
billing = typer.Typer(help="Invoices, credit notes and what they print.", no_args_is_help=True)


@dispute.command("open")
def open_dispute(
    receipt: Annotated[str, typer.Argument(help="receipt_id of an answer")],
    reason: Reason = "contested by the client",
    wait: Annotated[float, typer.Option(help="seconds to wait until it is paid out")] = 90.0,
    as_json: Json = False,
) -> None:
    """Freeze the amount of a receipt of yours until the operator decides."""
    api, deadline = Api.from_environment(), time.monotonic() + wait
    while True:
        try:
            opened = api.post("/disputes", {"request_id": receipt, "reason": reason})
            break
        except Failure as failure:
            if failure.status != REFUSED or "window_open" not in str(failure) or time.monotonic() > deadline:
                raise
            time.sleep(1.0)
    emit(as_json, opened, _dispute_text(opened))


@dispute.command("resolve")
def resolve_dispute(
    dispute_id: Annotated[str, typer.Argument(help="dsp_...")],
    uphold: Annotated[bool, typer.Option("--uphold", help="the client gets its money back")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="those who were paid keep it")] = False,
    amount_nanos: Annotated[int | None, typer.Option(help="with --uphold: only this part of the amount")] = None,
    reason: Reason = "decided by the operator",
    as_json: Json = False,
) -> None:
    """Decide a dispute (operator)."""
    if uphold == reject:
        raise Failure(USAGE, "say --uphold or --reject")
    body: dict[str, Any] = {"outcome": "uphold" if uphold else "reject", "reason": reason}
    if amount_nanos is not None:
        body["amount_nanos"] = amount_nanos
    resolved = Api.from_environment(admin=True).post(f"/disputes/{dispute_id}/resolve", body)
    emit(as_json, resolved, _dispute_text(resolved))


@dispute.command("list")
def list_disputes(
    account: Account = None,
    state: Annotated[str | None, typer.Option(help="open, upheld or rejected")] = None,
    as_json: Json = False,
) -> None:
    """Your disputes; for the operator, all."""
    rows = Api.from_environment(admin=account is not None).get("/disputes", account=account, state=state)["data"]
    shown = [{**row, "amount": money(row["amount_nanos"], row["currency"])} for row in rows]
    emit(as_json, rows, table(shown, "id", "tenant", "amount", "state", "credit_note"))


@dispute.command("show")
def show_dispute(dispute_id: Annotated[str, typer.Argument(help="dsp_...")], as_json: Json = False) -> None:
    """A dispute and its history."""
    found = Api.from_environment().get(f"/disputes/{dispute_id}")
    emit(as_json, found, _dispute_text(found))


@billing.command("list")
def list_invoices(account: Account = None, as_json: Json = False) -> None:
    """Finalised invoices: yours; for the operator, all."""
    rows = Api.from_environment(admin=account is not None).get("/billing/invoices", account=account)["data"]
    shown = [{**row, "total": money(row["total_nanos"], row["currency"])} for row in rows]
    emit(as_json, rows, table(shown, "number", "tenant", "period", "status", "total"))


@billing.command("get")
def get_invoice(
    number: Annotated[str, typer.Argument(help="INV-000001, CN-000001, or a period (2026-11)")],
    out: Annotated[Path, typer.Option("--out", "-o", help="file: .pdf, .html or .json; of invoices .csv or .txt too")],
    account: Account = None,
    dataset: Annotated[str, typer.Option(help="of .csv: invoice_detail or cost_and_usage")] = "invoice_detail",
    as_json: Json = False,
) -> None:
    """Download an invoice or a credit note; the file's ending says in which form."""
    is_note = number.startswith("CN-")
    forms = NOTE_FORMATS if is_note else tuple(FORMATS)
    if out.suffix not in forms:
        raise Failure(USAGE, f"{out} must end in one of {', '.join(forms)}")
    kind = FORMATS[out.suffix]
    path = f"/{'credit_notes' if is_note else 'invoices'}/{number}" + (
        f".{kind}" if kind in ("csv", "html", "pdf") else ""
    )
    query = {"dataset": dataset} if kind == "csv" else {"format": "text"} if kind == "text" else {}
    Api.from_environment(admin=account is not None).download(path, out, account=account, **query)
    emit(as_json, {"number": number, "file": str(out)}, f"{number} written to {out}")


@billing.command("notes")
def list_notes(account: Account = None, as_json: Json = False) -> None:
    """Credit notes: yours; for the operator, all."""
    rows = Api.from_environment(admin=account is not None).get("/billing/credit_notes", account=account)["data"]
    shown = [{**row, "total": money(row["total_nanos"], row["currency"])} for row in rows]
    emit(as_json, rows, table(shown, "number", "tenant", "invoice", "period", "total"))


@billing.command("compare")
def compare(
    detail: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="an Invoice Detail export (.csv)")],
    usage: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="the Cost and Usage export of the same")],
    as_json: Json = False,
) -> int:
    """Whether two FOCUS exports say the same, offline. Exit code 1 when they do not."""
    from metering.errors import ExportInvalid
    from metering.focus_agreement import disagreements

    try:
        found = disagreements(detail.read_bytes(), usage.read_bytes())
    except ExportInvalid as error:
        raise Failure(USAGE, str(error)) from error
    emit(as_json, {"agree": not found, "disagreements": found}, "\n".join(found) or "the exports agree")
    return FINDING if found else 0


@billing.command("finalise")
def finalise(
    account: Annotated[str, typer.Argument(help="the client")],
    period: Annotated[str, typer.Argument(help="a calendar month that is over: YYYY-MM")],
    as_json: Json = False,
) -> None:
    """Give the invoice of a month its number; it never changes afterwards (operator)."""
    invoice = Api.from_environment(admin=True).post("/invoices", {"account": account, "period": period})
    emit(as_json, invoice, _invoice_text(invoice))


@billing.command("close")
def close(
    period: Annotated[str | None, typer.Argument(help="a calendar month that is over; by default all of them")] = None,
    as_json: Json = False,
) -> None:
    """Finalise every invoice that is due (operator). The settler does so too, when a month is over."""
    made = Api.from_environment(admin=True).post("/billing/close", {"period": period} if period else {})["data"]
    shown = [{**row, "total": money(row["total_nanos"], row["currency"])} for row in made]
    emit(as_json, made, table(shown, "number", "tenant", "period", "status", "total") if made else "nothing is due")


@billing.command("pay")
def pay(number: Annotated[str, typer.Argument(help="INV-...")], as_json: Json = False) -> None:
    """Pay what is due of an invoice from the wallet."""
    invoice = Api.from_environment().post(f"/invoices/{number}/pay")
    emit(as_json, invoice, _invoice_text(invoice))


@billing.command("void")
def void(number: Annotated[str, typer.Argument(help="INV-...")], reason: Reason, as_json: Json = False) -> None:
    """Withdraw an open invoice; its month can be invoiced again (operator)."""
    invoice = Api.from_environment(admin=True).post(f"/invoices/{number}/void", {"reason": reason})
    emit(as_json, invoice, _invoice_text(invoice))


@billing.command("credit")
def credit(
    number: Annotated[str, typer.Argument(help="INV-...")],
    amount_nanos: Annotated[int, typer.Argument(help="net amount in nanos")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Give back part of an invoice by a credit note (operator)."""
    body = {"amount_nanos": amount_nanos, "reason": reason}
    note = Api.from_environment(admin=True).post(f"/invoices/{number}/credit_notes", body)
    emit(
        as_json,
        note,
        facts({**note, "total": money(note["total_nanos"], note["currency"])}, "number", "invoice", "total"),
    )


@billing.command("proof")
def proof(
    out: Annotated[Path, typer.Option("--out", "-o", help="file for the proof")],
    account: Account = None,
    period: Annotated[str | None, typer.Option(help="YYYY-MM or YYYY-MM-DD; all time by default")] = None,
    as_json: Json = False,
) -> None:
    """Download a statement of what you earned, with proofs."""
    api = Api.from_environment(admin=account is not None)
    api.download("/statements/proof", out, account=account, period=period)
    emit(as_json, {"file": str(out)}, f"proof written to {out}")


def _invoice_text(invoice: dict[str, Any]) -> str:
    shown = {name: invoice[name] for name in ("number", "tenant", "period", "status")}
    for name in ("total", "amount_due"):
        shown[name] = money(invoice[f"{name}_nanos"], invoice["currency"])
    return facts(shown)


def _dispute_text(found: dict[str, Any]) -> str:
    amount = money(found["amount_nanos"], found["currency"])
    shown = {**found, "amount": amount}
    return facts(shown, "id", "request_id", "state", "amount", "reason", "credit_note")
