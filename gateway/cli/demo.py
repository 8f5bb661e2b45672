"""openledger demo: one question, and everything that follows from its answer."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from gateway.cli.api import Api, data_directory, operator_key
from gateway.cli.asking import Asked, ask
from gateway.cli.failures import FINDING, USAGE, Failure
from gateway.cli.heat import HeatMap
from gateway.cli.money import fetch_receipt
from gateway.cli.output import Json, emit, money, table
from gateway.cli.verify import verify_data

SETTLING_SECONDS = 20.0


def demo(
    question: Annotated[str | None, typer.Argument(help="what to ask; a question of the demo's facts")] = None,
    model: Annotated[str | None, typer.Option(help="$OPENLEDGER_MODEL, or the demo adapter")] = None,
    data: Annotated[Path | None, typer.Option(help="data directory of the gateway on this machine")] = None,
    as_json: Json = False,
) -> int:
    """Ask the demo adapter; show the answer as a heat map, its receipt, cost, invoice, statements and verification."""
    data = data or data_directory()
    known = _known(data)
    api = _client(known)
    model = model or os.environ.get("OPENLEDGER_MODEL") or known.get("model")
    question = question or known.get("question")
    if not model or not question:
        raise Failure(USAGE, "no demo here: give a question and --model, or --data of a gateway with a demo")
    asked = ask(api, model, question, lambda tokens: None)
    receipt = fetch_receipt(api, asked.closing["receipt_id"], SETTLING_SECONDS)
    shown = {
        "model": model,
        "question": question,
        "answer": asked.text,
        "tokens": asked.tokens,
        **asked.closing,
        "receipt": json.loads(receipt),
        "verification": verify_data(receipt.encode(), log_key(api, data)),
        "invoice": api.get("/invoices"),
        "statements": _statements(api, asked),
    }
    if as_json:
        emit(True, shown, "")
    else:
        _print(shown, api.text("/invoices", format="text"))
    return 0 if shown["verification"]["verified"] else FINDING


def log_key(api: Api, data: Path) -> str:
    """The log's public key: the file on this machine, else what the gateway publishes."""
    try:
        return (data / "log.pub").read_text()
    except OSError:
        return Api(api.url.removesuffix("/v1"), api.key).text("/log/key")


def _known(data: Path) -> dict[str, Any]:
    try:
        return orjson.loads((data / "demo.json").read_bytes())
    except OSError:
        return {}


def _client(known: dict[str, Any]) -> Api:
    if "api_key" in known and not os.environ.get("OPENAI_API_KEY"):
        os.environ["OPENAI_API_KEY"] = known["api_key"]
    return Api.from_environment()


def _statements(api: Api, asked: Asked) -> list[dict[str, Any]]:
    """Each contributor's statement; reading other people's takes the operator's key."""
    key = operator_key()
    if key is None:
        return []
    operator = Api(api.url, key)
    names = [row["contributor"] for row in asked.closing["attribution"]["contributors"]]
    return [operator.get("/statements", account=name) for name in sorted(names)]


def _print(shown: dict[str, Any], invoice: str) -> None:
    console = Console(highlight=False)
    attribution, usage = shown["attribution"], shown["usage"]
    names = sorted(row["contributor"] for row in attribution["contributors"])
    heat = HeatMap(names, shown["tokens"])
    console.print(f"[bold]{shown['model']}[/]  {shown['question']}\n")
    console.print(heat.answer() if shown["tokens"] else shown["answer"])
    console.print()
    console.print(heat.legend(attribution))
    method, fidelity = attribution["method"], attribution["fidelity_ppm"] / 10_000
    console.print(f"\nmethod {method}, fidelity {fidelity:.2f} %; shares are provisional until the window closes")
    cost = money(usage["cost_nanos"], usage["currency"])
    counted = f"{usage['prompt_tokens']} prompt + {usage['completion_tokens']} completion tokens"
    console.print(f"\n[bold]usage[/]    {counted}, {cost}")
    console.print(f"[bold]receipt[/]  {shown['receipt_id']}")
    verification = shown["verification"]
    if verification["verified"]:
        tree = f"leaf {verification['leaf_index']} of a signed tree of {verification['tree_size']}"
        console.print(f"[bold]verify[/]   [green]holds[/]: {tree}")
    else:
        console.print(f"[bold]verify[/]   [red]FAILS[/]: {verification['step']}: {verification['detail']}")
    console.print(f"\n{invoice}", markup=False)
    if shown["statements"]:
        console.print("[bold]STATEMENTS[/] of the contributors\n")
        console.print(table([_statement_row(statement) for statement in shown["statements"]], *STATEMENT_COLUMNS))


STATEMENT_COLUMNS = ("account", "paid", "accrued", "net_score_nats")


def _statement_row(statement: dict[str, Any]) -> dict[str, Any]:
    totals, currency = statement["totals"], statement["currency"]
    score = sum(line["net_score_micronats"] for line in statement["lines"])
    return {
        "account": statement["account"],
        "paid": money(totals["paid_nanos"], currency),
        "accrued": money(totals["accrued_nanos"], currency),
        "net_score_nats": f"{score / 1e6:+.3f}",
    }
