"""Proves that what clients counted is what the journal holds and what the ledger billed, request by request.

A complete answer must be billed exactly: prompt, cached and completion tokens, the token ids that arrived, the cost. A
client that left may know fewer tokens than were generated before the engine stopped: billed >= seen. A request refused
with 4xx must not be billed at all. Where the account is the run's own, its invoice must hold these requests and nothing
else, and no hold may be left. The operator's check must be clean.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.observed import Observed

SHOWN_FINDINGS = 20


@dataclass(frozen=True)
class Finding:
    """One difference: a stable name and the numbers."""

    name: str
    detail: str


@dataclass(frozen=True)
class Books:
    """What the server's side says. `receipts` has the body of each receipt asked for, None where there is none.

    `journal` are events by request id, None when its files are not on this machine; `usage` is the answer of /v1/usage
    for an account that nobody else uses, else None; `check` the operator's check, None without the operator's key.
    """

    receipts: Mapping[str, dict[str, Any] | None]
    journal: Mapping[str, dict[str, Any]] | None = None
    usage: dict[str, Any] | None = None
    check: dict[str, Any] | None = None


@dataclass
class Reconciliation:
    """The findings (clean when there are none) and the totals that were compared, by how requests ended."""

    findings: list[Finding] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    tokens_seen: Counter[str] = field(default_factory=Counter)
    tokens_billed: Counter[str] = field(default_factory=Counter)
    compared: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.findings

    def json(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "compared": self.compared,
            "requests": dict(self.requests),
            "tokens_seen": dict(self.tokens_seen),
            "tokens_billed": dict(self.tokens_billed),
            "findings": [vars(finding) for finding in self.findings[:SHOWN_FINDINGS]],
            "findings_count": len(self.findings),
        }


def ending(observed: Observed) -> str:
    """How a request ended, for its client: complete, left, refused, broken, or unknown (it never learned an id)."""
    if observed.request_id is None:
        return "unknown"
    if observed.left:
        return "left"
    if observed.complete and not observed.failed:
        return "complete"
    return "refused" if 400 <= (observed.status or 0) < 500 else "broken"


def reconcile(seen: Sequence[Observed], books: Books) -> Reconciliation:
    """Compares every request, then the totals, then asks the operator's check."""
    result = Reconciliation(compared=["client = ledger"])
    for observed in seen:
        kind = ending(observed)
        receipt = books.receipts.get(observed.request_id or "")
        result.requests[kind] += 1
        result.tokens_seen[kind] += observed.tokens_seen
        result.tokens_billed[kind] += _data(receipt)["completion_tokens"] if receipt else 0
        result.findings += _compare(kind, observed, receipt)
    if books.journal is not None:
        result.compared.append("journal = ledger")
        result.findings += _compare_journal(books.receipts, books.journal)
    if books.usage is not None:
        result.compared.append("receipts = invoice = wallet")
        result.findings += _compare_totals(books.receipts, books.usage, unknown=result.requests["unknown"])
    if books.check is not None:
        result.compared.append("engine tally = journal = ledger = log")
        result.findings += [Finding(f"check: {f['name']}", f["detail"]) for f in books.check["findings"]]
    return result


def _compare(kind: str, observed: Observed, receipt: dict[str, Any] | None) -> Iterator[Finding]:
    request_id = observed.request_id
    if kind == "refused":
        if receipt:
            yield Finding("refused_but_billed", f"{request_id}: {observed.error}")
    elif receipt is None:
        if kind == "complete" or observed.tokens_seen:
            yield Finding("not_billed", f"{request_id} ({kind}): {observed.tokens_seen} tokens seen, no receipt")
    elif kind == "complete":
        yield from _compare_complete(observed, receipt)
    elif _data(receipt)["completion_tokens"] < observed.tokens_seen:
        billed = _data(receipt)["completion_tokens"]
        yield Finding("billed_less_than_seen", f"{request_id} ({kind}): {observed.tokens_seen} seen, {billed} billed")


def _compare_complete(observed: Observed, receipt: dict[str, Any]) -> Iterator[Finding]:
    usage, data = observed.usage, _data(receipt)
    assert usage is not None, "a complete answer has its usage"
    known = {
        "receipt_id": (observed.receipt_id, receipt["event"]["id"]),
        "model": (observed.answered_model, data["model"]),
        "prompt_tokens": (usage["prompt_tokens"], data["prompt_tokens"]),
        "cached_tokens": ((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0), data["cached_tokens"]),
        "completion_tokens": (usage["completion_tokens"], data["completion_tokens"]),
        "cost_nanos": (usage.get("cost_nanos"), receipt["rating"]["total_nanos"]),
    }
    if observed.tokens_seen:
        known["token_ids"] = (observed.tokens_seen, data["completion_tokens"])
    for name, (client, ledger) in known.items():
        if client != ledger:
            yield Finding(
                f"{name}_differ", f"{observed.request_id}: the client saw {client}, the receipt says {ledger}"
            )


def _compare_journal(
    receipts: Mapping[str, dict[str, Any] | None], journal: Mapping[str, dict[str, Any]]
) -> Iterator[Finding]:
    """Every receipt's event is the journal's, member for member; an event without receipt is not settled."""
    for request_id, receipt in receipts.items():
        event = journal.get(request_id)
        if receipt and event is None:
            yield Finding("not_in_journal", request_id)
        elif receipt and event != receipt["event"]:
            yield Finding("journal_differs", f"{request_id}: journal {event}, receipt {receipt['event']}")
        elif event is not None and not receipt:
            yield Finding("not_settled", f"{request_id} is in the journal and has no receipt")


def _compare_totals(
    receipts: Mapping[str, dict[str, Any] | None], usage: dict[str, Any], unknown: int
) -> Iterator[Finding]:
    """The invoice is the sum of the receipts; it may be more only by requests whose id no client learned."""
    settled = [receipt for receipt in receipts.values() if receipt]
    wanted: Counter[str] = Counter()
    for receipt in settled:
        wanted["nanos"] += receipt["rating"]["total_nanos"]
        for line in receipt["rating"]["lines"]:
            wanted[f"{line['kind']} tokens"] += line["quantity"]
    invoice = usage["invoice"]
    found: Counter[str] = Counter({"nanos": invoice["debited_nanos"] + invoice["owed_nanos"]})
    for line in invoice["lines"]:
        found[f"{line['kind']} tokens"] += line["quantity"]
    for name in sorted(wanted.keys() | found.keys()):
        if found[name] != wanted[name] and not (unknown and found[name] > wanted[name]):
            yield Finding("invoice_differs", f"{name}: receipts {wanted[name]}, invoice {found[name]}")
    if usage["wallet"]["debits_nanos"] != invoice["debited_nanos"]:
        detail = f"wallet {usage['wallet']['debits_nanos']} nanos, invoice {invoice['debited_nanos']}"
        yield Finding("wallet_differs", detail)
    if usage["wallet"]["held_nanos"]:
        yield Finding("hold_left", f"{usage['wallet']['held_nanos']} nanos are held with nothing in flight")


def _data(receipt: dict[str, Any]) -> dict[str, Any]:
    return receipt["event"]["data"]
