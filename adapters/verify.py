"""Checking an export from its content alone: no database, no trust in who wrote it."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from adapters.canonical import parse_canonical
from adapters.digests import digest
from adapters.errors import ExportMismatch, InvalidDocument
from adapters.example import Example
from adapters.version import AcceptedExample, DatanetVersion, VersionExample, version_digest, version_facts

FILES = ("version.json", "datanet.json", "policy.json", "contributions.jsonl", "examples.jsonl")


def check_export(files: Mapping[str, bytes]) -> DatanetVersion:
    """The version that the content of an export's files makes up.

    Recomputed: every example's digest, every contribution's Merkle root and document digest, the version's Merkle root
    and counts, and the digests of the policy and Datanet documents. Raises ExportMismatch.
    """
    for name in FILES:
        if name not in files:
            raise ExportMismatch(f"the export lacks {name}")
    version = _document(files, "version.json", "datanet-version")
    _document(files, "datanet.json", "datanet", version["datanet_document"])
    policy = _document(files, "policy.json", "policy", version["policy"])
    datanet = version["datanet"]
    contributions = dict(_contributions(files["contributions.jsonl"], datanet))
    examples = tuple(_examples(files["examples.jsonl"], contributions))
    _check_order(examples)
    _check_contributions(datanet, contributions, examples)
    accepted = [
        AcceptedExample(item.contributor, item.digest, item.licence, item.contribution, len(item.example.content))
        for item in sorted(examples, key=lambda item: contributions[item.contribution]["sequence"])
    ]
    for member, value in version_facts(datanet, accepted).items():
        if version[member] != value:
            raise ExportMismatch(f"version.json: {member} is {version[member]!r}, but the examples make it {value!r}")
    return DatanetVersion(datanet, version["version"], examples, policy["split_ppm"], files["version.json"])


_MEMBERS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "datanet": {"created_ms": int, "description": str, "licence": str, "name": str, "owner": str, "title": str},
    "policy": {"created_ms": int, "datanet": str, "previous": (str, type(None)), "set_by": str, "split_ppm": dict},
    "contribution": {
        "contributor": str,
        "created_ms": int,
        "datanet": str,
        "examples": int,
        "licence": str,
        "root": str,
        "sequence": int,
        "submitted_by": str,
    },
    "datanet-version": {
        "contributions": list,
        "contributors": dict,
        "created_ms": int,
        "datanet": str,
        "datanet_document": str,
        "examples": int,
        "licences": list,
        "made_by": str,
        "policy": str,
        "sequence": int,
        "version": str,
    },
    "example": {"contribution": str, "contributor": str, "example": str, "licence": str, "value": dict},
}

_OPTIONAL = {"policy": {"effective", "votes"}}  # of a change of policy


def _parse(where: str, content: bytes, kind: str) -> dict[str, Any]:
    try:
        value = parse_canonical(content)
    except InvalidDocument as error:
        raise ExportMismatch(f"{where}: {error}") from None
    members = _MEMBERS[kind]
    given = set(value) - {"type"} - _OPTIONAL.get(kind, set()) if isinstance(value, dict) else None
    if given != set(members) or (kind != "example" and value.get("type") != kind):
        raise ExportMismatch(f"{where}: not a {kind}")
    for member, types in members.items():
        if not isinstance(value[member], types):
            raise ExportMismatch(f"{where}: {member} has the wrong type")
    return value


def _document(files: Mapping[str, bytes], name: str, kind: str, expected: str | None = None) -> dict[str, Any]:
    value = _parse(name, files[name], kind)
    if expected is not None and digest(files[name]) != expected:
        raise ExportMismatch(f"{name}: its digest is not the one that version.json names")
    return value


def _lines(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    lines = content.split(b"\n")
    if lines.pop() != b"":
        raise ExportMismatch(f"{name}: the last line is cut off")
    for number, line in enumerate(lines, start=1):
        yield f"{name} line {number}", line


def _contributions(content: bytes, datanet: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in _lines("contributions.jsonl", content):
        value = _parse(where, line, "contribution")
        if value["datanet"] != datanet:
            raise ExportMismatch(f"{where}: a contribution to {value['datanet']}, not to {datanet}")
        yield digest(line), value


def _examples(content: bytes, contributions: Mapping[str, Mapping[str, Any]]) -> Iterator[VersionExample]:
    for where, line in _lines("examples.jsonl", content):
        value = _parse(where, line, "example")
        try:
            example = Example.of(value["value"])
        except ValueError as error:
            raise ExportMismatch(f"{where}: {error}") from None
        if example.digest != value["example"]:
            raise ExportMismatch(f"{where}: the example's digest is {example.digest}, not {value['example']}")
        contribution = contributions.get(value["contribution"])
        if contribution is None:
            raise ExportMismatch(f"{where}: contributions.jsonl lacks {value['contribution']}")
        if any(contribution[member] != value[member] for member in ("contributor", "licence")):
            raise ExportMismatch(f"{where}: its contribution names another contributor or licence")
        yield VersionExample(example.digest, value["contributor"], value["licence"], value["contribution"], example)


def _check_order(examples: tuple[VersionExample, ...]) -> None:
    keys = [(item.contributor, item.digest) for item in examples]
    for number, (before, after) in enumerate(pairwise(keys), start=2):
        if before >= after:
            raise ExportMismatch(f"examples.jsonl line {number}: out of canonical order, or twice")


def _check_contributions(
    datanet: str, contributions: Mapping[str, Mapping[str, Any]], examples: tuple[VersionExample, ...]
) -> None:
    held: dict[str, list[tuple[str, str, str]]] = {name: [] for name in contributions}
    for item in examples:
        held[item.contribution].append((item.contributor, item.digest, item.licence))
    for name, triples in held.items():
        sequence = contributions[name]["sequence"]
        if version_digest(datanet, triples) != contributions[name]["root"]:
            raise ExportMismatch(f"contribution {sequence} ({name}): its examples do not make its root")
