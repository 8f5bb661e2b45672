"""The invariants of receipts, for metering.check: in the log, in the totals that invoices add up, in the volumes that
choose tiers. (name, detail) of each that is broken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from metering.canonical import digest
from metering.period import previous_month
from metering.pricebook import KINDS
from metering.store import Connection

TOTALS = "tenant, day, model, adapter, kind, unit_nanos, requests, quantity, amount_nanos"
Broken = tuple[str, str]


def check_usage(connection: Connection, leaves: Sequence[str]) -> Iterator[Broken]:
    """Every receipt's body against its leaf (`leaves`: the log's digests), and all bodies added up against the rows."""
    seen = _Seen()
    for request_id, index, body in connection.execute("SELECT id, leaf_index, body FROM usage"):
        if not 0 <= index < len(leaves) or leaves[index] != digest(bytes(body)):
            yield "usage_not_in_log", f"{request_id} differs from leaf {index}"
        else:
            seen.add(request_id, orjson.loads(bytes(body)))
    yield from seen.compare(connection)


class _Seen:
    """What the receipts say, added up as settlement adds it up."""

    def __init__(self) -> None:
        self._totals: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
        self._volumes: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])  # by tenant and month
        self._said: dict[tuple[str, str, tuple[int, ...]], str] = {}  # tenant, month, volumes: one receipt that says so

    def add(self, request_id: str, body: dict[str, Any]) -> None:
        """Count a receipt, and note which volumes it was rated by."""
        data, time = body["event"]["data"], body["settlement"]["time"]
        tenant = data["tenant"]
        for line in body["rating"]["lines"]:
            if line["quantity"]:
                kind = line["kind"]
                key = (tenant, time[:10], data["model"], data["adapter"] or "", kind, line["unit_nanos"])
                totals = self._totals[key]
                totals[0] += 1
                totals[1] += line["quantity"]
                totals[2] += line["amount_nanos"]
                self._volumes[tenant, time[:7]][KINDS.index(kind)] += line["quantity"]
        if "volumes" in body["rating"]:
            month = previous_month(min(body["event"]["time"], time)[:7])
            volumes = tuple(body["rating"]["volumes"][kind] for kind in KINDS)
            self._said.setdefault((tenant, month, volumes), request_id)

    def compare(self, connection: Connection) -> Iterator[Broken]:
        """With the rows that invoices and tiers are read from, and with each other."""
        rows = connection.execute(f"SELECT {TOTALS} FROM usage_totals")
        stored = {row[:6]: list(row[6:]) for row in rows}
        for key in sorted(stored.keys() | self._totals.keys()):
            found, expected = stored.get(key, [0, 0, 0]), self._totals.get(key, [0, 0, 0])
            if found != expected:
                detail = f"{' '.join(map(str, key))}: {found} requests, tokens, nanos; the receipts say {expected}"
                yield "totals_not_usage", detail
        for (tenant, month, volumes), request_id in sorted(self._said.items()):
            used = self._volumes.get((tenant, month), [0, 0, 0])
            if list(volumes) != used:
                yield "volumes_not_usage", f"{request_id} was rated by {list(volumes)} of {month}, {tenant} used {used}"
