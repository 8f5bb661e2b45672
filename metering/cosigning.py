"""Asking witnesses to cosign the log's newest head (c2sp.org/tlog-witness), and keeping what they answer."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from metering.cosignature import store_cosignature, verify_cosignature
from metering.errors import NoteInvalid
from metering.ledger import Ledger
from metering.log import consistency_proof, latest_checkpoint
from metering.note import SIZE, encode_base64, parse_checkpoint, split_note
from metering.witness_policy import Witness

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one witness: the POSIX time of its cosignature, or why there is none."""

    witness: str
    size: int
    time_seconds: int | None
    failure: str = ""


def collect_cosignatures(ledger: Ledger, witnesses: list[Witness]) -> list[Asked]:
    """Have each witness that has a URL cosign the newest checkpoint; NotIncluded while the log is empty.

    One that cannot be reached, refuses or answers nonsense is named in the result and stands in nobody's way.
    """
    note = latest_checkpoint(ledger)
    text = split_note(note)[0]
    size = parse_checkpoint(text).size
    asked = []
    with httpx.Client(timeout=TIMEOUT_SECONDS) as client:
        for witness in witnesses:
            if witness.url is None:
                continue
            try:
                line = _ask(client, ledger, witness, size, note)
                name, raw = _line_of(witness, text, line)
                time_seconds = verify_cosignature(text, raw, witness.key)
            except (httpx.HTTPError, NoteInvalid, ValueError) as error:
                asked.append(Asked(witness.name, size, None, str(error)))
                continue
            with ledger.store.write() as connection:
                store_cosignature(connection, size, witness.vkey, f"— {name} {encode_base64(raw)}\n")
            asked.append(Asked(witness.name, size, time_seconds))
    return asked


def _ask(client: httpx.Client, ledger: Ledger, witness: Witness, size: int, note: str) -> str:
    """The answer's signature lines. A witness that has seen an older head says so, and is then given the proof."""
    url = f"{str(witness.url).rstrip('/')}/add-checkpoint"
    answer = client.post(url, content=f"old 0\n\n{note}".encode())
    if answer.status_code == 409:
        seen = answer.text.strip()
        if not SIZE.match(seen):
            raise ValueError(f"409: {seen[:200]}")
        if int(seen) > size:
            raise ValueError(f"it has seen a tree of {seen} leaves; this one has {size}")
        proof = consistency_proof(ledger, int(seen), size) if 0 < int(seen) < size else []
        lines = "".join(f"{encode_base64(value)}\n" for value in proof)
        answer = client.post(url, content=f"old {seen}\n{lines}\n{note}".encode())
    if answer.status_code != 200:
        raise ValueError(f"{answer.status_code}: {answer.text.strip()[:200]}")
    return answer.text


def _line_of(witness: Witness, text: str, lines: str) -> tuple[str, bytes]:
    """The witness's own signature among the lines of its answer; NoteInvalid when it is not there."""
    for name, raw in split_note(f"{text}\n{lines}")[1]:
        if name == witness.key_name and raw[:4] == witness.key_id:
            return name, raw
    raise NoteInvalid("no cosignature by its key in the answer")
