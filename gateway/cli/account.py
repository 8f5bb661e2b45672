"""openledger account|key|credit."""

from typing import Annotated

import typer

from gateway.cli.api import Api
from gateway.cli.output import Json, emit, facts, money, table

accounts = typer.Typer(help="Accounts (operator).", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
credit = typer.Typer(help="Prepaid credit (operator).", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="account")]


@accounts.command("create")
def create_account(
    name: Name, role: Annotated[str, typer.Option(help="member or admin")] = "member", as_json: Json = False
) -> None:
    """Create an account, its namespace and its wallet."""
    account = Api.from_environment(admin=True).post("/accounts", {"name": name, "role": role})
    emit(as_json, account, facts(account))


@accounts.command("list")
def list_accounts(as_json: Json = False) -> None:
    """List all accounts."""
    rows = Api.from_environment(admin=True).get("/accounts")["data"]
    emit(as_json, rows, table(rows, "name", "role"))


@accounts.command("show")
def show_account(name: Name, as_json: Json = False) -> None:
    """Show an account and its wallet."""
    account = Api.from_environment(admin=True).get(f"/accounts/{name}")
    wallet = account["wallet"]
    lines = {part: money(wallet[f"{part}_nanos"], wallet["currency"]) for part in ("available", "held")}
    emit(as_json, account, facts({"name": account["name"], "role": account["role"], **lines}))


@keys.command("create")
def create_key(
    account: Name, label: Annotated[str, typer.Option(help="what it is for")] = "", as_json: Json = False
) -> None:
    """Make an API key. It is shown once."""
    key = Api.from_environment(admin=True).post(f"/accounts/{account}/keys", {"label": label})
    emit(as_json, key, key["secret"])


@keys.command("list")
def list_keys(account: Name, as_json: Json = False) -> None:
    """List the keys of an account."""
    rows = Api.from_environment(admin=True).get(f"/accounts/{account}/keys")["data"]
    emit(as_json, rows, table(rows, "id", "label", "created", "revoked"))


@keys.command("revoke")
def revoke_key(account: Name, key_id: str, as_json: Json = False) -> None:
    """Revoke an API key at once."""
    key = Api.from_environment(admin=True).delete(f"/accounts/{account}/keys/{key_id}")
    emit(as_json, key, facts(key))


@credit.command("add")
def add_credit(
    account: Name,
    amount: Annotated[str, typer.Argument(help="in currency units, up to nine decimals: 12.50")],
    key: Annotated[str | None, typer.Option("--key", help="Idempotency-Key: the same key credits once")] = None,
    as_json: Json = False,
) -> None:
    """Add prepaid credit to an account's wallet."""
    headers = {"idempotency-key": key} if key else {}
    api = Api.from_environment(admin=True)
    body = {"account": account, "amount": amount}
    done = api.send("POST", "/credit", query={}, headers=headers, json=body).json()
    wallet = done["wallet"]
    emit(as_json, done, f"{account} has {money(wallet['available_nanos'], wallet['currency'])} available")
