"""Votes: contributors change a Datanet's policy by a majority of its versions' examples. Every vote is a document."""

import json
from collections.abc import Mapping
from typing import Any

import apsw

from adapters import outbox
from adapters.document import Document
from adapters.errors import NotContributor
from adapters.policy import policy_document, require_ahead


def cast(
    connection: apsw.Connection,
    datanet: str,
    split_ppm: Mapping[str, int],
    effective: str,
    voter: str,
    behind: Mapping[str, int],
    now_ms: int,
) -> Document:
    """Record a vote for a split from a period on; it replaces the voter's last one.

    `behind` is each contributor's number of examples in what would be the version now: the weight of a vote, counted
    anew at each vote. Raises NotContributor, InvalidPolicy, RetroactivePolicy.
    """
    require_ahead(effective, now_ms)
    if not behind.get(voter):
        raise NotContributor(f"{voter} has no examples in {datanet} that a version would hold")
    value = {"type": "vote", "datanet": datanet, "split_ppm": split_ppm, "effective": effective, "voter": voter}
    document = outbox.record(connection, Document.of({**value, "created_ms": now_ms}))
    connection.execute(
        "INSERT INTO votes VALUES (?, ?, ?, ?, ?) ON CONFLICT (datanet, voter) DO UPDATE"
        " SET split_ppm = excluded.split_ppm, effective = excluded.effective, document = excluded.document",
        (datanet, voter, _key(split_ppm), effective, document.digest),
    )
    return document


def decide(
    connection: apsw.Connection, vote: Document, current: Document, behind: Mapping[str, int], now_ms: int
) -> Document | None:
    """The policy, recorded, that the votes for the same as `vote` make with more than half of all examples behind them.

    None while they are not, or when it is the current policy already.
    """
    value, known = vote.value(), current.value()
    if (known["split_ppm"], known.get("effective")) == (value["split_ppm"], value["effective"]):
        return None
    rows: list[Any] = connection.execute(
        "SELECT voter, document FROM votes WHERE datanet = ? AND split_ppm = ? AND effective = ? ORDER BY voter",
        (value["datanet"], _key(value["split_ppm"]), value["effective"]),
    ).fetchall()
    if 2 * sum(behind.get(voter, 0) for voter, _ in rows) <= sum(behind.values()):
        return None
    votes = [document for voter, document in rows if behind.get(voter)]
    policy = policy_document(
        value["datanet"], value["split_ppm"], value["voter"], now_ms, current.digest, value["effective"], votes
    )
    return outbox.record(connection, policy)


def _key(split_ppm: Mapping[str, int]) -> str:
    return json.dumps(split_ppm, sort_keys=True)
