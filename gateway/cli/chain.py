"""openledger anchor and openledger claim: the optional EVM side. Both work on files and a node, not on the gateway.

Keys come from OPENLEDGER_CHAIN_KEY or from the keystore file that --keystore names (its password from
OPENLEDGER_CHAIN_PASSWORD). Nothing of metering.chain is imported before one of these commands runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.api import data_directory
from gateway.cli.failures import FINDING, REFUSED, UNREACHABLE, USAGE, Failure
from gateway.cli.output import Json, emit, errors, facts

if TYPE_CHECKING:
    from metering.chain.config import ChainConfig
    from metering.chain.deployment import Deployment
    from metering.chain.sender import Sender
    from metering.ledger import Ledger

anchor = typer.Typer(name="anchor", help="Anchor the log on an EVM chain, and publish payouts there.")
claim = typer.Typer(name="claim", help="Claim what a contributor was promised on chain.")

Rpc = Annotated[str | None, typer.Option("--rpc", help="URL of an EVM node; OPENLEDGER_CHAIN_RPC by default")]
Data = Annotated[Path | None, typer.Option("--data", help="data directory; $DATA or ./data")]
Keystore = Annotated[Path | None, typer.Option("--keystore", help="V3 keystore file; else OPENLEDGER_CHAIN_KEY")]
Person = Annotated[str, typer.Option("--account", help="the contributor's name in the ledger")]


@anchor.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    rpc: Rpc = None,
    data: Data = None,
    keystore: Keystore = None,
    payouts: Annotated[bool, typer.Option(help="publish a payout tree too, when something is owed")] = True,
    registry: Annotated[bool, typer.Option(help="register Datanets, versions and adapters too")] = True,
    again: Annotated[bool, typer.Option("--again", help="propose a tree that a guardian withdrew")] = False,
    role: Annotated[list[str] | None, typer.Option(help="who is paid on chain: contributor by default")] = None,
    minimum_nanos: Annotated[int, typer.Option(help="smaller balances wait")] = 1,
    every: Annotated[float | None, typer.Option(help="go on, once in so many seconds")] = None,
    as_json: Json = False,
) -> None:
    """Bring the chain up to the ledger: newest checkpoint, payout tree, registry. Safe to stop and run again."""
    if context.invoked_subcommand is not None:
        return
    roles = tuple(role or ("contributor",))
    options = {"payouts": payouts, "registry": registry, "again": again, "roles": roles, "minimum_nanos": minimum_nanos}
    while True:
        try:
            _run_once(rpc, data or data_directory(), keystore, options, as_json)
        except Failure as failure:
            if every is None or failure.status != UNREACHABLE:
                raise
            errors.print(f"openledger: {failure}; trying again", markup=False)
        if every is None:
            return
        time.sleep(every)


def _run_once(rpc: str | None, data: Path, keystore: Path | None, options: dict[str, Any], as_json: bool) -> None:
    with failures(), _ledger(data) as (config, ledger, deployment), _sender(rpc, data, keystore) as sender:
        from metering.chain.operate import Operator

        deployment.require_chain(sender.rpc)
        report = Operator(ledger, deployment, sender, config.log_public_key_path.read_text()).run(**options)
    emit(as_json, report.document(), "\n".join(report.lines()))
    if report.refused:
        raise Failure(REFUSED, "; ".join(f"{what}: {refused}" for what, refused in report.refused.items()))


@anchor.command()
def deploy(
    rpc: Rpc = None,
    data: Data = None,
    keystore: Keystore = None,
    token: Annotated[str | None, typer.Option(help="ERC-20 to pay; without it a worthless test token is made")] = None,
    delay_seconds: Annotated[int, typer.Option(min=0, help="how long a payout tree waits before it counts")] = 86_400,
    nanos_per_step: Annotated[int | None, typer.Option(help="with --units-per-step: the exact rate")] = None,
    units_per_step: Annotated[int | None, typer.Option(help="one token for one unit of currency by default")] = None,
    label: Annotated[str, typer.Option(help="another label makes another set of contracts")] = "first",
    as_json: Json = False,
) -> None:
    """Create the contracts and write chain.json. The signer becomes admin, anchorer, publisher and guardian."""
    directory = data or data_directory()
    path = directory / "chain.json"
    if path.exists() and label == "first":
        raise Failure(USAGE, f"{path} exists; move it away and choose another --label to deploy once more")
    if (nanos_per_step is None) != (units_per_step is None):
        raise Failure(USAGE, "--nanos-per-step and --units-per-step go together")
    with failures(), _sender(rpc, directory, keystore) as sender:
        from metering.chain.address import parse_address
        from metering.chain.deploy import deploy as create
        from metering.chain.rate import Rate
        from metering.config import MeteringConfig

        rate = Rate(nanos_per_step, units_per_step or 0) if nanos_per_step is not None else None
        currency = MeteringConfig.from_environment(directory, os.environ).currency
        address = parse_address(token) if token else None
        deployment, receipts = create(sender, sender.rpc.chain_id(), currency, address, delay_seconds, rate, label)
        deployment.save(path)
    gas = {name: receipt.gas_used for name, receipt in receipts.items()}
    addresses = {name: getattr(deployment, name) for name in ("registry", "anchor", "distributor", "token")}
    text = facts({"chain": deployment.chain_id, **addresses, "gas": sum(gas.values()), "written to": str(path)})
    emit(as_json, {"chain_id": deployment.chain_id, **addresses, "gas": gas, "file": str(path)}, text)


@anchor.command()
def bind(
    file: Annotated[Path | None, typer.Option("--file", help="a signed binding (openledger claim sign)")] = None,
    account: Annotated[str | None, typer.Option("--account", help="or: record an address on your word")] = None,
    address: Annotated[str | None, typer.Option("--address")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Record which address is paid for a contributor."""
    if file is None and not (account and address):
        raise Failure(USAGE, "name a --file, or an --account and its --address")
    with failures():
        from metering.chain.address import parse_address
        from metering.chain.binding import Binding, next_sequence, parse_binding, record_binding

        with _ledger(data or data_directory()) as (_, ledger, deployment):
            if file is not None:
                binding = parse_binding(json.loads(file.read_text()))
            else:
                sequence = next_sequence(ledger, account or "", deployment.chain_id)
                binding = Binding(account or "", parse_address(address), deployment.chain_id, sequence)
            digest = record_binding(ledger, binding)
    emit(as_json, {**binding.document(), "digest": digest}, f"{binding.account} is paid at {binding.address}")


@anchor.command()
def status(rpc: Rpc = None, data: Data = None, as_json: Json = False) -> int:
    """What the chain has, next to what the ledger has. Needs no key. Exit code 1 when the payouts do not add up."""
    with failures():
        from metering.chain.operate import compare
        from metering.chain.session import open_rpc

        with _ledger(data or data_directory()) as (config, ledger, deployment), open_rpc(_config(rpc)) as node:
            deployment.require_chain(node)
            found = compare(node, ledger, deployment, config.log_origin)
    findings = [f"{finding['name']}: {finding['detail']}" for finding in found["findings"]]
    emit(as_json, found, "\n".join([facts(found), *findings]))
    return FINDING if findings else 0


@claim.callback(invoke_without_command=True)
def send(
    context: typer.Context,
    file: Annotated[Path | None, typer.Option("--file", help="a claim file")] = None,
    account: Annotated[str | None, typer.Option("--account", help="or: take it from the ledger in --data")] = None,
    rpc: Rpc = None,
    data: Data = None,
    keystore: Keystore = None,
    as_json: Json = False,
) -> None:
    """Have the distributor pay a contributor. Anyone may send it: the tokens go to the address in the tree."""
    if context.invoked_subcommand is not None:
        return
    with failures():
        from metering.chain.claimfile import parse_claim
        from metering.chain.distributor import claim as pay
        from metering.chain.errors import ChainRefused
        from metering.chain.operate import cost_document, cost_text

        if (file is None) == (account is None):
            raise Failure(USAGE, "name a claim --file, or an --account")
        claims = [parse_claim(json.loads(file.read_text()))] if file else _claims(data, account or "")
        done: list[dict[str, Any]] = []
        with _sender(rpc, None, keystore) as sender:
            for item in claims:
                try:
                    receipt = pay(sender, item)
                except ChainRefused as refused:
                    if refused.reason != "NothingToClaim" or len(claims) == 1:
                        raise
                    continue
                done.append(
                    {"address": item.address, "cumulative_units": str(item.cumulative_units), **cost_document(receipt)}
                )
    text = "\n".join(
        f"paid {entry['address']} up to {entry['cumulative_units']} units: {cost_text(entry)}" for entry in done
    )
    emit(as_json, done, text or "nothing to claim")


@claim.command()
def prove(
    account: Person,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the claim files")] = Path("."),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write a contributor's claim files: they need neither the ledger nor the operator any more."""
    with failures():
        paths = []
        for item in _claims(data, account):
            paths.append(out / f"claim-{account}-{item.epoch}-{item.address[2:10]}.json")
            paths[-1].write_text(json.dumps(item.document(), indent=2) + "\n")
    emit(as_json, [str(path) for path in paths], "\n".join(map(str, paths)))


@claim.command()
def sign(
    account: Person,
    chain_id: Annotated[int, typer.Option(help="the chain to be paid on")],
    sequence: Annotated[int, typer.Option(help="1, and one more each time the address changes")] = 1,
    keystore: Keystore = None,
) -> None:
    """Print a signed binding of an account to your address, for the operator to record."""
    with failures():
        from metering.chain.binding import sign_binding
        from metering.chain.keys import Signer

        binding = sign_binding(Signer.load(os.environ, keystore), account, chain_id, sequence)
    typer.echo(json.dumps(binding.document(), indent=2))


@contextmanager
def failures() -> Iterator[None]:
    """Every error of the chain as an exit code and one line."""
    from metering.chain import errors as named
    from metering.errors import MeteringError

    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(
            USAGE, f"{error.name} is not installed; the chain commands need eth-account and eth-abi"
        ) from None
    except named.ChainUnavailable as error:
        raise Failure(UNREACHABLE, str(error)) from None
    except (named.AnchorConflict, named.PayoutConflict) as error:
        raise Failure(FINDING, f"{type(error).__name__}: {error}") from None
    except (named.ChainRefused, named.NotFinal, named.ProposalCancelled, named.NothingPublished) as error:
        raise Failure(REFUSED, f"{type(error).__name__}: {error}") from None
    except (MeteringError, ValueError, OSError) as error:
        raise Failure(USAGE, f"{type(error).__name__}: {error}") from None


def _config(rpc: str | None) -> ChainConfig:
    from metering.chain.config import ChainConfig

    return ChainConfig.from_environment(os.environ, rpc)


@contextmanager
def _sender(rpc: str | None, directory: Path | None, keystore: Path | None) -> Iterator[Sender]:
    from metering.chain.keys import Signer
    from metering.chain.session import OUTBOX_NAME, open_sender

    signer = Signer.load(os.environ, keystore)
    with open_sender(_config(rpc), signer, directory / OUTBOX_NAME if directory else None) as sender:
        yield sender


@contextmanager
def _ledger(directory: Path) -> Iterator[tuple[Any, Ledger, Deployment]]:
    from metering.chain.deployment import FILE_NAME, Deployment
    from metering.config import MeteringConfig
    from metering.ledger import Ledger

    config = MeteringConfig.from_environment(directory, os.environ)
    deployment = Deployment.load(directory / FILE_NAME)
    ledger = Ledger.open(config)
    try:
        yield config, ledger, deployment
    finally:
        ledger.close()


def _claims(data: Path | None, account: str) -> list[Any]:
    from metering.chain.claimfile import claim_files

    with _ledger(data or data_directory()) as (_, ledger, deployment):
        return claim_files(ledger, deployment, account)
