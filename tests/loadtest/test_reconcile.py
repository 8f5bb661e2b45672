"""Reconciliation: a real receipt against what a client could have seen, and every way in which they can differ."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest.journal import read_journal
from loadtest.observed import Observed
from loadtest.reconcile import Books, ending, reconcile

VECTORS = Path(__file__).parents[1] / "vectors"
RECEIPT = json.loads(json.loads((VECTORS / "receipt.json").read_text())["receipt"])["body"]
ID = RECEIPT["event"]["id"]
DATA = RECEIPT["event"]["data"]
NANOS = RECEIPT["rating"]["total_nanos"]


def whole(**changes: Any) -> Observed:
    """What the client of the vector's request saw."""
    usage = {
        "prompt_tokens": DATA["prompt_tokens"],
        "completion_tokens": DATA["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": DATA["cached_tokens"]},
        "cost_nanos": NANOS,
    }
    seen = Observed("stream", DATA["model"], 0.0, 200, ID, DATA["model"], ID, DATA["completion_tokens"], complete=True)
    seen.usage = usage
    for name, value in changes.items():
        setattr(seen, name, value)
    return seen


def leaver(tokens: int) -> Observed:
    return Observed("disconnect", DATA["model"], 0.0, 200, ID, DATA["model"], None, tokens, left=True)


def usage() -> dict[str, Any]:
    """The account's usage when this request is all there was."""
    lines = [{"kind": line["kind"], "quantity": line["quantity"]} for line in RECEIPT["rating"]["lines"]]
    invoice = {"lines": lines, "debited_nanos": NANOS, "owed_nanos": 0}
    return {"invoice": invoice, "wallet": {"debits_nanos": NANOS, "held_nanos": 0}}


def names(seen: list[Observed], books: Books) -> list[str]:
    return [finding.name for finding in reconcile(seen, books).findings]


def test_a_request_that_was_counted_alike_everywhere_is_clean() -> None:
    """Client, receipt, journal, invoice and wallet agree; the report says what was compared."""
    check = {"findings": []}
    result = reconcile([whole()], Books({ID: RECEIPT}, {ID: RECEIPT["event"]}, usage(), check))
    assert result.clean
    assert len(result.compared) == 4
    assert result.tokens_seen["complete"] == result.tokens_billed["complete"] == DATA["completion_tokens"]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"tokens_seen": DATA["completion_tokens"] - 1}, "token_ids_differ"),
        ({"receipt_id": "req_other"}, "receipt_id_differ"),
        ({"answered_model": "facts/other"}, "model_differ"),
    ],
)
def test_what_the_client_saw_must_be_what_was_billed(change: dict[str, Any], finding: str) -> None:
    """One member off is one finding."""
    assert names([whole(**change)], Books({ID: RECEIPT})) == [finding]


@pytest.mark.parametrize("member", ["prompt_tokens", "completion_tokens", "cost_nanos"])
def test_the_usage_shown_must_be_the_usage_billed(member: str) -> None:
    """A single token or nano is enough."""
    seen = whole()
    assert seen.usage is not None
    seen.usage[member] += 1
    assert names([seen], Books({ID: RECEIPT})) == [f"{member}_differ"]


def test_a_leaver_may_know_less_than_was_billed_and_never_more() -> None:
    """Billed >= seen: tokens generated before the engine stopped are billed; tokens that arrived were generated."""
    assert names([leaver(DATA["completion_tokens"] - 3)], Books({ID: RECEIPT})) == []
    assert names([leaver(DATA["completion_tokens"] + 1)], Books({ID: RECEIPT})) == ["billed_less_than_seen"]


@pytest.mark.parametrize("seen", [whole(), leaver(1)])
def test_tokens_that_arrived_and_were_never_billed_are_found(seen: Observed) -> None:
    """No receipt within the time is a finding."""
    assert names([seen], Books({ID: None})) == ["not_billed"]


def test_a_refused_request_must_not_be_billed() -> None:
    """Neither with a receipt, nor may it be expected to have one."""
    refused = Observed("chat", "a/b", 0.0, 429, ID, error="429 rate_limit_exceeded")
    assert ending(refused) == "refused"
    assert names([refused], Books({ID: None})) == []
    assert names([refused], Books({ID: RECEIPT})) == ["refused_but_billed"]


def _no_event(journal: dict[str, Any]) -> None:
    del journal[ID]


def _one_token_more(journal: dict[str, Any]) -> None:
    journal[ID]["data"]["completion_tokens"] += 1


@pytest.mark.parametrize(("change", "finding"), [(_no_event, "not_in_journal"), (_one_token_more, "journal_differs")])
def test_the_ledger_holds_what_the_journal_holds(change: Callable[[dict], None], finding: str) -> None:
    """Member for member."""
    journal = {ID: copy.deepcopy(RECEIPT["event"])}
    change(journal)
    assert names([whole()], Books({ID: RECEIPT}, journal)) == [finding]


def test_an_event_that_was_never_settled_is_found() -> None:
    """In the journal, without receipt."""
    assert names([whole()], Books({ID: None}, {ID: RECEIPT["event"]})) == ["not_billed", "not_settled"]


def test_the_invoice_is_the_sum_of_the_receipts() -> None:
    """A token more on the invoice is found, unless a request was lost whose id no client learned."""
    more = usage()
    more["invoice"]["lines"][2]["quantity"] += 1
    assert names([whole()], Books({ID: RECEIPT}, usage=more)) == ["invoice_differs"]
    lost = Observed("stream", "a/b", 0.0, None, error="no connection")
    assert ending(lost) == "unknown"
    assert names([whole(), lost], Books({ID: RECEIPT}, usage=more)) == []


def test_a_hold_that_is_left_is_found() -> None:
    """With nothing in flight, nothing is held."""
    held = usage()
    held["wallet"]["held_nanos"] = 5
    assert names([whole()], Books({ID: RECEIPT}, usage=held)) == ["hold_left"]


def test_findings_of_the_operators_check_are_handed_on() -> None:
    """The proof is not clean when the server's own is not."""
    check = {"findings": [{"name": "generated_not_metered", "detail": "req_9: 4 generated, none metered"}]}
    assert names([whole()], Books({ID: RECEIPT}, check=check)) == ["check: generated_not_metered"]


def test_the_journal_is_read_as_its_format_page_says(tmp_path: Path) -> None:
    """A segment that the gateway's writer made comes out event by event; a damaged frame ends the segment."""
    from metering.config import MeteringConfig
    from metering.journal import JournalWriter

    config = MeteringConfig(data_dir=tmp_path)
    writer = JournalWriter(config, "test")
    events = [{**RECEIPT["event"], "id": f"req_{number}"} for number in range(3)]
    for one in events:
        writer.append(json.dumps(one).encode()).result(10)
    writer.close()
    assert read_journal(config.journal_dir) == {one["id"]: one for one in events}
    [path] = config.journal_dir.glob("*.seg")
    data = bytearray(path.read_bytes())
    data[data.index(b"req_1")] ^= 1
    path.write_bytes(data)
    assert list(read_journal(config.journal_dir)) == ["req_0"]
