"""Invoices, credit notes and disputes over HTTP: who may see and do what, in which form."""

import csv
import io
import json
import re

import httpx
import pytest

from metering.canonical import digest
from metering.statement_proof import verify_statement_proof
from tests.gateway.conftest import member

PERIOD = "2025-11"
Client = httpx.AsyncClient


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def profiled(operator: Client, alice: Client) -> None:
    """Issuer with tax, client with an address."""
    issuer = {"name": "OpenLedger Oy", "address": ["Helsinki"], "tax_label": "VAT", "tax_rate_ppm": 255_000}
    issuer["dispute_days"] = 3650  # the month is long over
    assert (await operator.put("/v1/billing/profile", json=issuer)).status_code == 200
    client = {"name": "Żółw <b>& Söhne</b>", "address": ["Berlin"], "tax_id": "DE1"}
    assert (await alice.put("/v1/billing/profile", json=client)).json()["name"] == client["name"]


async def test_an_invoice_from_draft_to_documents(operator: Client, alice: Client, events: list) -> None:
    """Draft, finalised, read as JSON, text, canonical bytes, CSV, HTML and PDF."""
    await profiled(operator, alice)
    draft = (await alice.get(f"/v1/invoices/{PERIOD}")).json()
    assert (draft["id"], draft["status"], draft["subtotal_nanos"]) == (f"draft-{PERIOD}", "draft", 6483)
    made = await operator.post("/v1/invoices", json={"account": "alice", "period": PERIOD})
    assert (made.status_code, made.json()["id"], made.json()["status"]) == (201, "INV-000001", "paid")
    for identifier in ("INV-000001", PERIOD):
        invoice = (await alice.get(f"/v1/invoices/{identifier}")).json()
        assert (invoice["number"], invoice["total_nanos"]) == ("INV-000001", 6483 + 1653)
    document = await alice.get("/v1/invoices/INV-000001/document")
    assert digest(document.content) == invoice["digest"]
    assert "total 0.000008136 USD" in (await alice.get("/v1/invoices/INV-000001", params={"format": "text"})).text
    detail = list(csv.DictReader(io.StringIO((await alice.get("/v1/invoices/INV-000001.csv")).text)))
    usage = (await alice.get("/v1/invoices/INV-000001.csv", params={"dataset": "cost_and_usage"})).text
    assert [row["ChargeCategory"] for row in detail] == ["Usage"] * 3 + ["Tax"]
    assert "LoRA adapter" in usage
    page = await alice.get("/v1/invoices/INV-000001.html")
    assert page.headers["content-type"].startswith("text/html")
    assert "Żółw &lt;b&gt;&amp; Söhne&lt;/b&gt;" in page.text
    assert invoice["receipts"]["root"] in page.text.replace("&#43;", "+")
    pdf = await alice.get("/v1/invoices/INV-000001.pdf")
    assert pdf.content.startswith(b"%PDF-")
    assert pdf.content == (await alice.get("/v1/invoices/INV-000001.pdf")).content
    [listed] = (await alice.get("/v1/billing/invoices")).json()["data"]
    assert (listed["number"], listed["status"]) == ("INV-000001", "paid")


async def test_a_dispute_over_http(operator: Client, alice: Client, events: list) -> None:
    """Opened by the client, once; resolved by the operator, once; the refund is in the wallet, the check is clean."""
    await profiled(operator, alice)
    await operator.post("/v1/invoices", json={"account": "alice", "period": PERIOD})
    before = (await alice.get("/v1/accounts/alice")).json()["wallet"]["available_nanos"]
    opened = await alice.post("/v1/disputes", json={"request_id": events[0].id, "reason": "empty answer"})
    assert (opened.status_code, opened.json()["state"]) == (201, "open")
    path = f"/v1/disputes/{opened.json()['id']}"
    again = await alice.post("/v1/disputes", json={"request_id": events[0].id, "reason": "empty answer"})
    assert code(again) == (409, "dispute_exists")
    assert code(await alice.post(f"{path}/resolve", json={"outcome": "uphold", "reason": "me"})) == (403, "forbidden")
    assert (await operator.post(f"{path}/resolve", json={"outcome": "maybe", "reason": "x"})).status_code == 400
    resolved = await operator.post(f"{path}/resolve", json={"outcome": "uphold", "reason": "replayed"})
    assert (resolved.json()["state"], resolved.json()["credit_note"]) == ("upheld", "CN-000001")
    twice = await operator.post(f"{path}/resolve", json={"outcome": "reject", "reason": "no"})
    assert code(twice) == (409, "dispute_resolved")
    note = (await alice.get("/v1/credit_notes/CN-000001")).json()
    assert (note["invoice"], note["total_nanos"]) == ("INV-000001", 2161 + 551)
    assert (await alice.get("/v1/accounts/alice")).json()["wallet"]["available_nanos"] == before + note["total_nanos"]
    assert "CN-000001" in (await alice.get("/v1/invoices/INV-000001.html")).text
    document = await alice.get("/v1/credit_notes/CN-000001/document")
    assert digest(document.content) == note["digest"]
    assert [step["state"] for step in (await alice.get(path)).json()["history"]] == ["open", "upheld"]
    report = (await operator.get("/v1/admin/check")).json()
    assert [one for one in report["findings"] if one["name"] != "metered_not_generated"] == []  # no engine, no tally


async def test_a_credit_note_is_printed(operator: Client, alice: Client, events: list) -> None:
    """Page and PDF: the invoice it is on, the tax by name and rate, totals that add up; the PDF is always the same."""
    await profiled(operator, alice)
    await operator.post("/v1/invoices", json={"account": "alice", "period": PERIOD})
    body = {"amount_nanos": 1000, "reason": "<i>goodwill</i>"}
    assert (await operator.post("/v1/invoices/INV-000001/credit_notes", json=body)).json()["number"] == "CN-000001"
    page = (await alice.get("/v1/credit_notes/CN-000001.html")).text
    for text in ("Credit on invoice INV-000001", "VAT 25.5 %", "&lt;i&gt;goodwill&lt;/i&gt;", "Żółw &lt;b&gt;"):
        assert text in page
    amounts = re.findall(r"<td>([0-9.]+)</td>", page)
    assert amounts == ["0.000001000", "0.000001000", "0.000000255", "0.000001255", "0.000001255"]
    printed, again = [(await alice.get("/v1/credit_notes/CN-000001.pdf")).content for _ in range(2)]
    assert printed == again
    assert (printed[:5], printed.count(b"/Type /Page\n")) == (b"%PDF-", 1)


async def test_a_credit_note_before_the_invoice_names_its_month(operator: Client, alice: Client, events: list) -> None:
    """It has no tax yet: the month's invoice will show it, and charge tax on the rest."""
    await profiled(operator, alice)
    dispute = (await alice.post("/v1/disputes", json={"request_id": events[0].id, "reason": "x"})).json()["id"]
    await operator.post(f"/v1/disputes/{dispute}/resolve", json={"outcome": "uphold", "reason": "replayed"})
    page = (await alice.get("/v1/credit_notes/CN-000001.html")).text
    assert "Credit on November 2025" in page
    assert f"Request {events[0].id}" in page
    assert "VAT" not in page
    assert (await alice.get("/v1/credit_notes/CN-000001.pdf")).content.startswith(b"%PDF-")
    await operator.post("/v1/invoices", json={"account": "alice", "period": PERIOD})
    assert "Credit note CN-000001" in (await alice.get("/v1/invoices/INV-000001.html")).text


async def test_a_month_is_closed_by_command(operator: Client, alice: Client, events: list) -> None:
    """All that is due, once; a final invoice is not finalised again, a draft is not paid, voided or credited."""
    for path, body in (("pay", {}), ("void", {"reason": "x"}), ("credit_notes", {"amount_nanos": 1, "reason": "x"})):
        assert code(await operator.post(f"/v1/invoices/{PERIOD}/{path}", json=body)) == (409, "invoice_is_draft")
    assert code(await alice.get(f"/v1/invoices/{PERIOD}/document")) == (409, "invoice_is_draft")
    assert code(await alice.post("/v1/billing/close", json={})) == (403, "forbidden")
    assert code(await operator.post("/v1/billing/close", json={"period": "2999-01"})) == (409, "period_not_over")
    [made] = (await operator.post("/v1/billing/close", json={})).json()["data"]
    assert (made["number"], made["tenant"], made["period"]) == ("INV-000001", "alice", PERIOD)
    assert (await operator.post("/v1/billing/close", json={})).json()["data"] == []
    for identifier in ("INV-000001", PERIOD, f"draft-{PERIOD}"):
        again = await operator.post(f"/v1/invoices/{identifier}/finalise", params={"account": "alice"}, json={})
        assert code(again) == (409, "invoice_not_draft")


async def test_a_draft_is_finalised_by_its_period(operator: Client, alice: Client, events: list) -> None:
    """POST /v1/invoices/2025-11/finalise?account=alice."""
    made = await operator.post(f"/v1/invoices/{PERIOD}/finalise", params={"account": "alice"}, json={})
    assert (made.status_code, made.json()["number"]) == (201, "INV-000001")


async def test_a_dispute_is_upheld_in_part(operator: Client, alice: Client, events: list) -> None:
    """A thousand of 2161 nanos go to the client; more than all, or a float, is refused; a late dispute too."""
    await profiled(operator, alice)
    opened = (await alice.post("/v1/disputes", json={"request_id": events[0].id, "reason": "half"})).json()
    path = f"/v1/disputes/{opened['id']}/resolve"
    for amount, expected in ((2162, (409, "amount_exceeds_dispute")), (1.5, (400, "amount_invalid"))):
        body = {"outcome": "uphold", "reason": "x", "amount_nanos": amount}
        assert code(await operator.post(path, json=body)) == expected
    body = {"outcome": "uphold", "reason": "half of it", "amount_nanos": 1000}
    resolved = (await operator.post(path, json=body)).json()
    note = (await alice.get(f"/v1/credit_notes/{resolved['credit_note']}")).json()
    assert (resolved["state"], note["amount_nanos"]) == ("upheld", 1000)
    await operator.put("/v1/billing/profile", json={"name": "Issuer", "dispute_days": 30})
    late = await alice.post("/v1/disputes", json={"request_id": events[1].id, "reason": "late"})
    assert code(late) == (409, "dispute_too_late")


async def test_others_see_nothing_and_members_decide_nothing(operator: Client, alice: Client, events: list) -> None:
    """Another tenant's invoice, dispute and receipt are not found; the operator's steps are forbidden."""
    await profiled(operator, alice)
    await operator.post("/v1/invoices", json={"account": "alice", "period": PERIOD})
    dispute = (await alice.post("/v1/disputes", json={"request_id": events[0].id, "reason": "x"})).json()["id"]
    async with await member(operator, "bob") as bob:
        for path in ("INV-000001", "INV-000001.csv", "INV-000001.html", "INV-000001.pdf", "INV-000001/document"):
            assert code(await bob.get(f"/v1/invoices/{path}")) == (404, "invoice_unknown")
        assert code(await bob.get("/v1/invoices/INV-000009")) == (404, "invoice_unknown")
        assert code(await bob.get(f"/v1/disputes/{dispute}")) == (404, "dispute_unknown")
        contested = await bob.post("/v1/disputes", json={"request_id": events[1].id, "reason": "x"})
        assert code(contested) == (404, "receipt_not_found")
        assert (await bob.get("/v1/billing/invoices")).json()["data"] == []
        await operator.post("/v1/invoices/INV-000001/credit_notes", json={"amount_nanos": 1, "reason": "x"})
        for path in ("CN-000001", "CN-000001.html", "CN-000001.pdf", "CN-000001/document", "CN-000009"):
            assert code(await bob.get(f"/v1/credit_notes/{path}")) == (404, "credit_note_unknown")
        assert code(await bob.get("/v1/disputes?account=alice")) == (403, "forbidden")
        assert code(await bob.put("/v1/billing/profile", json={"name": "B", "tax_rate_ppm": 0})) == (403, "forbidden")
        steps = (
            ("/v1/invoices", {"account": "bob", "period": PERIOD}),
            ("/v1/invoices/INV-000001/void", {"reason": "x"}),
            ("/v1/invoices/INV-000001/credit_notes", {"amount_nanos": 1, "reason": "x"}),
        )
        for path, body in steps:
            assert code(await bob.post(path, json=body)) == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/invoices", {"account": "alice", "period": "2025-11-02"}, (400, "period_not_a_month")),
        ("/v1/invoices", {"account": "alice", "period": "2999-01"}, (409, "period_not_over")),
        ("/v1/invoices", {"account": "alice", "period": "2020-01"}, (409, "nothing_to_invoice")),
        ("/v1/invoices", {"account": "alice", "period": "soon"}, (400, "invalid_period")),
        ("/v1/invoices", {"account": "nobody", "period": "2025-11"}, (404, "account_not_found")),
        ("/v1/invoices/INV-000007/void", {"reason": "x"}, (404, "invoice_unknown")),
        ("/v1/invoices/INV-000007/credit_notes", {"amount_nanos": 1.5, "reason": "x"}, (400, "amount_invalid")),
        ("/v1/disputes/dsp_1/resolve", {"outcome": "uphold", "reason": "x"}, (404, "dispute_unknown")),
        ("/v1/disputes", {"request_id": "req_1", "reason": "x"}, (404, "receipt_not_found")),
    ],
)
async def test_wrong_steps_are_named(
    operator: Client, alice: Client, path: str, body: dict, expected: tuple[int, str]
) -> None:
    """In OpenAI's error shape, with the status that fits."""
    assert code(await operator.post(path, json=body)) == expected


async def test_a_bad_profile_is_named(alice: Client) -> None:
    """Unknown members and wrong types."""
    for body in ({"name": "A", "colour": "red"}, {"address": []}, {"name": "A", "address": "Berlin"}):
        assert code(await alice.put("/v1/billing/profile", json=body)) == (400, "profile_invalid")
    assert json.loads((await alice.get("/v1/billing/profile")).text)["name"] == "alice"


async def test_a_contributor_downloads_a_proof_that_holds(operator: Client, alice: Client, events: list) -> None:
    """The statement's proof verifies with the log's public key; others may not ask for it."""
    proof = await operator.get("/v1/statements/proof", params={"account": "ada", "period": PERIOD})
    key = (await alice.get("/log/key")).text
    statement = verify_statement_proof(proof.content, key)
    assert (statement["account"], statement["totals"]["paid_nanos"] > 0) == ("ada", True)
    assert code(await alice.get("/v1/statements/proof?account=ada")) == (403, "forbidden")
