"""openledger verify: receipts, statement proofs and copies of the log, offline; what does not hold is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.api import data_directory
from gateway.cli.failures import FINDING, USAGE, Failure
from gateway.cli.output import Json, emit

if TYPE_CHECKING:
    from metering.witness_policy import WitnessPolicy

CHECKPOINT = "checkpoint"


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(exists=True, help="receipts (files, .jsonl, folders), a statement's proof, a copy of the log"),
    ],
    log_key: Annotated[
        Path | None, typer.Option("--log-key", help="the log's public keys; $DATA/log.pub by default")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="a witness policy: whose cosignatures it takes")
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="a copy of the log, which must hold every receipt given")
    ] = None,
    saved: Annotated[
        list[Path] | None, typer.Option("--saved", help="an earlier checkpoint that the log must extend")
    ] = None,
    as_json: Json = False,
) -> int:
    """Verify offline what you were given. Exit code 1 when any of it does not hold."""
    believed = read_policy(policy)
    public_keys = read_public_keys(log_key, believed)
    copies = [path for path in paths if (path / CHECKPOINT).is_file()] + ([log] if log else [])
    results = [_verified(name, data, public_keys, believed) for name, data in _documents(paths)]
    if saved and not copies:
        raise Failure(USAGE, "--saved is checked against a copy of the log (openledger log fetch)")
    notes = [path.read_text() for path in saved or ()]
    results += [_verified_log(copy, public_keys, believed, notes, results) for copy in copies]
    holds = all(result["verified"] for result in results)
    shown = results[0] if len(results) == 1 else {"verified": holds, "results": results}
    emit(as_json, {name: member for name, member in shown.items() if not name.startswith("_")}, _text(results))
    return 0 if holds else FINDING


def verify_data(data: bytes, public_key: str, policy: WitnessPolicy | None = None) -> dict[str, Any]:
    """The outcome of a receipt's offline verification, as a document."""
    from metering.errors import NoteInvalid, ReceiptInvalid
    from metering.receipt import verify_receipt

    try:
        verified = verify_receipt(data, public_key, policy)
    except ReceiptInvalid as error:
        return {"verified": False, "step": error.step, "detail": error.detail}
    except NoteInvalid as error:
        return {"verified": False, "step": "log_key", "detail": str(error)}
    shown: dict[str, Any] = {"leaf_index": verified.leaf_index, "tree_size": verified.tree_size}
    if policy:
        shown["witnesses"] = list(verified.witnesses)
    return {"verified": True, **shown, "body": verified.body}


def _verified(name: str, data: bytes, public_keys: str, policy: WitnessPolicy | None) -> dict[str, Any]:
    """A receipt's or statement proof's outcome, by what the document says it is."""
    from metering.canonical import parse_strict
    from metering.errors import CanonicalError, StatementInvalid
    from metering.statement_proof import PROOF_TYPE, verify_statement_proof

    try:
        value = parse_strict(data)
    except CanonicalError as error:
        return {"file": name, "verified": False, "step": "canonical", "detail": str(error)}
    if not isinstance(value, dict) or value.get("type") != PROOF_TYPE:
        return {"file": name, **verify_data(data, public_keys, policy)}
    try:
        return {"file": name, "verified": True, "statement": verify_statement_proof(data, public_keys)}
    except StatementInvalid as error:
        return {"file": name, "verified": False, "step": error.step, "detail": error.detail}


def _verified_log(
    copy: Path, public_keys: str, policy: WitnessPolicy | None, saved: list[str], results: list[dict[str, Any]]
) -> dict[str, Any]:
    """The outcome for a copy of the log, which must also hold the good receipts among the results."""
    from metering import merkle
    from metering.canonical import canonical_bytes, digest
    from metering.errors import LogInvalid
    from metering.log import leaf_bytes
    from metering.log_copy import verify_log

    leaves = {
        result["leaf_index"]: merkle.leaf_hash(leaf_bytes("usage", digest(canonical_bytes(result["body"]))))
        for result in results
        if "leaf_index" in result
    }
    try:
        found = verify_log(copy, public_keys, saved=saved, policy=policy, leaves=leaves)
    except LogInvalid as error:
        return {"file": str(copy), "verified": False, "step": error.step, "detail": error.detail}
    shown = {"tree_size": found.checkpoint.size, "origin": found.checkpoint.origin, "entries": dict(found.entries)}
    return {"file": str(copy), "verified": True, **shown, "receipts": len(leaves), "witnesses": list(found.witnesses)}


def _documents(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each document: a file, a line of a .jsonl file, the .json and .jsonl files of a folder."""
    for path in paths:
        if (path / CHECKPOINT).is_file():
            continue
        files = sorted([*path.glob("*.json"), *path.glob("*.jsonl")]) if path.is_dir() else [path]
        if not files:
            raise Failure(USAGE, f"{path} holds no .json, no .jsonl and no copy of the log")
        for file in files:
            if file.suffix != ".jsonl":
                yield str(file), file.read_bytes()
                continue
            for number, line in enumerate(file.read_bytes().splitlines(), start=1):
                if line.strip():
                    yield f"{file}:{number}", line


def read_policy(path: Path | None) -> WitnessPolicy | None:
    """The witness policy of a file, if one is named."""
    from metering.errors import PolicyInvalid
    from metering.witness_policy import parse_policy

    if path is None:
        return None
    try:
        return parse_policy(path.read_text())
    except (OSError, UnicodeDecodeError, PolicyInvalid) as error:
        raise Failure(USAGE, f"{path}: {error}") from None


def read_public_keys(path: Path | None, policy: WitnessPolicy | None) -> str:
    """The file named; else the logs that the policy names; else log.pub of the data directory."""
    if path is None and policy is not None and policy.logs:
        return policy.logs
    path = path or data_directory() / "log.pub"
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(USAGE, f"cannot read the log's public key {path}: {error}") from None


def _text(results: list[dict[str, Any]]) -> str:
    failed = [result for result in results if not result["verified"]]
    if len(results) > 1 and not failed:
        return "\n".join([f"{len(results)} hold", *map(_holds, (one for one in results if "entries" in one))])
    lines = [f"{one['file']} does NOT hold: {one['step']}: {one['detail']}" for one in failed]
    if len(results) > 1:
        return "\n".join([*lines, f"{len(failed)} of {len(results)} do not hold"])
    return "\n".join(lines) or _holds(results[0])


def _holds(result: dict[str, Any]) -> str:
    if "statement" in result:
        statement = result["statement"]
        return f"{result['file']} holds: {statement['account']} was paid {statement['totals']['paid_nanos']} nanos"
    cosigned = f", cosigned by {', '.join(result['witnesses'])}" if result.get("witnesses") else ""
    if "entries" in result:
        return f"{result['file']} holds: {result['tree_size']} entries of {result['origin']}{cosigned}"
    return f"{result['file']} holds: leaf {result['leaf_index']} of a signed tree of {result['tree_size']}{cosigned}"
