"""The `openledger` command. Everything but serve and train speaks HTTP to a gateway, here or elsewhere."""

import os
import sys

import typer
from typer.exceptions import TyperException

from gateway.cli import account, adapter, audit, billing, chain, datanet, demo, log, money, payout, serve
from gateway.cli.failures import BUG, USAGE, Failure
from gateway.cli.output import errors
from gateway.cli.verify import verify

DEBUG = "OPENLEDGER_DEBUG"

app = typer.Typer(
    name="openledger", help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.add_typer(datanet.app, name="datanet")
app.add_typer(adapter.app, name="adapter")
app.add_typer(audit.app, name="audit")
app.add_typer(account.accounts, name="account")
app.add_typer(account.keys, name="key")
app.add_typer(account.credit, name="credit")
app.add_typer(chain.anchor, name="anchor")
chain.claim.command("register")(payout.register)
chain.claim.command("fetch")(payout.fetch)
app.add_typer(chain.claim, name="claim")
app.add_typer(billing.dispute, name="dispute")
app.add_typer(billing.billing, name="billing")
app.add_typer(log.log, name="log")
for command in (money.invoice, money.statement, money.receipt, verify, money.check, money.usage):
    app.command(command.__name__)(command)


def main() -> None:
    """Runs a command; every way it can end is an exit code of gateway.cli.failures."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    try:
        status = app(arguments, standalone_mode=False)
    except Failure as failure:
        errors.print(f"openledger: {failure}", markup=False)
        return failure.status
    except TyperException as error:
        errors.print(f"openledger: {_one_line(error)}", markup=False)
        return USAGE
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads; the exit must stay silent
        return 0
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        errors.print(f"openledger: {type(error).__name__}: {error} (our bug; {DEBUG}=1 shows where)", markup=False)
        return BUG
    return status if isinstance(status, int) else 0


def _one_line(error: TyperException) -> str:
    """typer's message, which names the parameter where it can."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(message.split()) or "a command is missing"


if __name__ == "__main__":
    main()
