"""openledger dispute|billing, against a gateway that is a stub: what is asked of it, and what is printed."""

import json

import httpx
import pytest

from gateway.cli.main import run

DISPUTE = {
    "object": "dispute", "id": "dsp_1", "request_id": "req_1", "state": "open", "amount_nanos": 2161,
    "currency": "USD", "reason": "empty", "credit_note": None,
}  # fmt: skip


class Asked(list):
    """Requests made as (method, path, body); answers are taken from the front of `answers`, then DISPUTE."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list = []

    def request(self, method: str, url: str, **options) -> httpx.Response:
        self.append((method, url.removeprefix("http://stub/v1"), options.get("json")))
        status, body = self.answers.pop(0) if self.answers else (200, DISPUTE)
        return httpx.Response(status, json=body, request=httpx.Request(method, url))


@pytest.fixture
def asked(monkeypatch) -> Asked:
    made = Asked()
    monkeypatch.setattr(httpx, "request", made.request)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("OPENLEDGER_URL", "http://stub/v1")
    monkeypatch.setenv("OPENLEDGER_API_KEY", "sk-ol-x")
    return made


def test_a_receipt_is_disputed_by_naming_it(asked, capsys):
    """`dispute RECEIPT` opens a dispute, with the reason given."""
    assert run(["dispute", "req_1", "--reason", "empty"]) == 0
    assert asked == [("POST", "/disputes", {"request_id": "req_1", "reason": "empty"})]
    assert "0.000002161 USD" in capsys.readouterr().out


def test_it_waits_until_the_request_is_paid_out(asked):
    """The settlement window has to close first; other refusals end the command at once."""
    refusal = {"error": {"message": "window_open: 3", "type": "x", "param": None, "code": "window_open"}}
    asked.answers = [(409, refusal), (409, refusal)]
    assert run(["dispute", "req_1"]) == 0
    assert len(asked) == 3
    asked.answers = [(409, {"error": {**refusal["error"], "message": "twice", "code": "dispute_exists"}})]
    assert run(["dispute", "req_1"]) == 3
    assert len(asked) == 4


def test_the_operator_says_one_of_two_things(asked, capsys):
    """--uphold or --reject, not both and not neither."""
    assert run(["dispute", "resolve", "dsp_1"]) == 2
    assert run(["dispute", "resolve", "dsp_1", "--uphold", "--reject"]) == 2
    assert run(["dispute", "resolve", "dsp_1", "--uphold", "--reason", "replayed", "--json"]) == 0
    assert asked == [("POST", "/disputes/dsp_1/resolve", {"outcome": "uphold", "reason": "replayed"})]
    assert json.loads(capsys.readouterr().out)["id"] == "dsp_1"


def test_a_download_has_a_form_that_we_know(asked, tmp_path):
    """The file's ending decides; another one is wrong usage."""
    assert run(["billing", "get", "INV-000001", "-o", str(tmp_path / "x.docx")]) == 2
    assert asked == []


def test_invoices_are_finalised_and_voided(asked, capsys):
    """What is asked of the gateway, and the outcome as text."""
    invoice = {
        "number": "INV-000001", "tenant": "acme", "period": "2026-10", "status": "open", "currency": "USD",
        "total_nanos": 2_000_000_000, "amount_due_nanos": 1_000_000_000,
    }  # fmt: skip
    asked.answers = [(201, invoice), (200, {**invoice, "status": "void"})]
    assert run(["billing", "finalise", "acme", "2026-10"]) == 0
    assert "2.00 USD" in capsys.readouterr().out
    assert run(["billing", "void", "INV-000001", "--reason", "wrong address"]) == 0
    assert [body for _, _, body in asked] == [{"account": "acme", "period": "2026-10"}, {"reason": "wrong address"}]
