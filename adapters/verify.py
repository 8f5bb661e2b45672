"""Checking an export from its content alone: no database, no trust in who wrote it."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from adapters.canonical import parse_canonical
from adapters.digests import digest
from adapters.errors import ExportMismatch, InvalidDocument
from adapters.example import Example
from adapters.near_duplicates import ACCEPT, CHECK, SET_ASIDE
from adapters.version import AcceptedExample, DatanetVersion, VersionExample, repeated, version_digest, version_facts

FILES = ("version.json", "datanet.json", "policy.json", "contributions.jsonl", "examples.jsonl")
SET_ASIDE_FILE = "near_duplicates.jsonl"
"""Of versions whose Datanet sets near duplicates aside; an export of any other has no such file."""


def check_export(files: Mapping[str, bytes]) -> DatanetVersion:
    """The version that the content of an export's files makes up.

    Recomputed: every example's digest, every contribution's Merkle root and document digest, the version's Merkle root
    and counts, which examples are near duplicates of which, and the digests of the policy and Datanet documents.
    Raises ExportMismatch.
    """
    for name in FILES:
        if name not in files:
            raise ExportMismatch(f"the export lacks {name}")
    version = _document(files, "version.json", "datanet-version")
    described = _document(files, "datanet.json", "datanet", version["datanet_document"])
    policy = _document(files, "policy.json", "policy", version["policy"])
    datanet = version["datanet"]
    contributions = dict(_contributions(files["contributions.jsonl"], datanet))
    checked = _is_checked(files, described, version)
    examples = tuple(item for item, _ in _examples(files, "examples.jsonl", contributions))
    reasons = list(_examples(files, SET_ASIDE_FILE, contributions)) if checked else []
    repeats = tuple(item for item, _ in reasons)
    _check_order("examples.jsonl", examples)
    _check_order(SET_ASIDE_FILE, repeats)
    _check_contributions(datanet, contributions, (*examples, *repeats))
    accepted = [
        AcceptedExample(item.contributor, item.digest, item.licence, item.contribution, item.example.content)
        for item in sorted((*examples, *repeats), key=lambda item: contributions[item.contribution]["sequence"])
    ]
    aside = {item.digest: reason for item, reason in reasons}
    _check_set_aside(aside, repeated(accepted) if checked else {})
    for member, value in version_facts(datanet, accepted, aside if checked else None).items():
        if version[member] != value:
            raise ExportMismatch(f"version.json: {member} is {version[member]!r}, but the examples make it {value!r}")
    return DatanetVersion(
        datanet, version["version"], examples, policy["split_ppm"], files["version.json"], repeats, aside
    )


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
    "near duplicate": {
        "contribution": str,
        "contributor": str,
        "example": str,
        "licence": str,
        "near_duplicate_of": str,
        "value": dict,
    },
}

_OPTIONAL = {
    "policy": {"effective", "votes"},  # of a change of policy
    "datanet": {"near_duplicates"},  # older Datanets accept them without saying so
    "datanet-version": {"near_duplicates"},
}
_UNTYPED = {"example", "near duplicate"}  # lines that are no documents


def _parse(where: str, content: bytes, kind: str) -> dict[str, Any]:
    try:
        value = parse_canonical(content)
    except InvalidDocument as error:
        raise ExportMismatch(f"{where}: {error}") from None
    members = _MEMBERS[kind]
    given = set(value) - {"type"} - _OPTIONAL.get(kind, set()) if isinstance(value, dict) else None
    if given != set(members) or (kind not in _UNTYPED and value.get("type") != kind):
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


def _is_checked(files: Mapping[str, bytes], datanet: Mapping[str, Any], version: Mapping[str, Any]) -> bool:
    """Whether near duplicates were set aside: what the Datanet says, so the version and the export must have it."""
    checked = datanet.get("near_duplicates", ACCEPT) == SET_ASIDE
    if checked != (SET_ASIDE_FILE in files):
        raise ExportMismatch(
            f"the export {'lacks' if checked else 'has'} {SET_ASIDE_FILE}, and its Datanet says otherwise"
        )
    found = version.get("near_duplicates")
    if checked and (not isinstance(found, dict) or found.get("check") != CHECK):
        raise ExportMismatch(f"version.json: near_duplicates is not of the check {CHECK}")
    if not checked and found is not None:
        raise ExportMismatch("version.json: near_duplicates, of a Datanet that accepts them")
    return checked


def _check_set_aside(claimed: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Every near duplicate is set aside for the example it repeats, and nothing else is."""
    for example in sorted(claimed.keys() | found.keys()):
        if claimed.get(example) != found.get(example):
            said, is_ = _reason(claimed.get(example)), _reason(found.get(example))
            raise ExportMismatch(f"{SET_ASIDE_FILE}: {example} is {is_} by its content, not {said}")


def _reason(near_duplicate_of: str | None) -> str:
    return f"a near duplicate of {near_duplicate_of}" if near_duplicate_of else "nobody's near duplicate"


def _examples(
    files: Mapping[str, bytes], name: str, contributions: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[VersionExample, str]]:
    """Examples of a file, each with what it is a near duplicate of, or nothing."""
    for where, line in _lines(name, files[name]):
        value = _parse(where, line, "example" if name == "examples.jsonl" else "near duplicate")
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
        item = VersionExample(example.digest, value["contributor"], value["licence"], value["contribution"], example)
        yield item, value.get("near_duplicate_of", "")


def _check_order(name: str, examples: tuple[VersionExample, ...]) -> None:
    keys = [(item.contributor, item.digest) for item in examples]
    for number, (before, after) in enumerate(pairwise(keys), start=2):
        if before >= after:
            raise ExportMismatch(f"{name} line {number}: out of canonical order, or twice")


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
