"""FOCUS exports pass an independent linter of the 1.4 model and add up to the invoice, digit by digit."""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal

import pytest
from focus_data_toolkit.model.validator import COND_UNIT_PRICING, lint_focus_1_4_structure

from metering.billing_profile import BillingProfile, put_profile
from metering.credit_note import credit_invoice
from metering.dispute import open_dispute, resolve_dispute
from metering.errors import ExportInvalid
from metering.event import rfc3339
from metering.focus import cost_and_usage, invoice_detail
from metering.focus_agreement import disagreements
from metering.invoice import build_invoice
from metering.invoice_lifecycle import finalise_invoice, get_invoice
from metering.ledger import now_us

EXACT = re.compile(r"-?[0-9]+\.[0-9]{9}\Z")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def total(found: list[dict[str, str]]) -> int:
    return int(sum(Decimal(row["BilledCost"]) for row in found) * 10**9)


def lint(dataset: str, found: list[dict[str, str]]) -> list[str]:
    return lint_focus_1_4_structure(dataset, found, supported_conditions=[COND_UNIT_PRICING]).messages()


@pytest.fixture
def invoice(market, settler):
    """An invoice with lines of two models, an adjustment, tax, and a credit note on it."""
    put_profile(market.ledger, "operator", BillingProfile("Issuer", tax_label="VAT", tax_rate_ppm=255_000))
    events = [*market.serve(3), *market.serve(2, adapter=None), *market.serve(1, purpose="canary")]
    settler.drain()
    settler.close_window()
    dispute = open_dispute(market.ledger, "acme", events[0].id, "wrong")
    resolve_dispute(market.ledger, dispute["id"], uphold=True, reason="yes")
    finalise_invoice(market.ledger, "acme", rfc3339(now_us())[:7], at_us=now_us() + 40 * 86_400_000_000)
    credit_invoice(market.ledger, "INV-000001", 1000, "goodwill")
    return get_invoice(market.ledger, "INV-000001")


def test_invoice_detail_is_valid_and_adds_up(invoice):
    """Lines, credit and tax are the invoice's total; the credit note refers to the invoice."""
    found = rows(invoice_detail(invoice))
    assert lint("Invoice Detail", found) == []
    own = [row for row in found if row["InvoiceId"] == "INV-000001"]
    assert total(own) == invoice["total_nanos"]
    assert {row["ChargeCategory"] for row in own} == {"Usage", "Credit", "Tax"}
    [note] = [row for row in found if row["InvoiceId"] == "CN-000002"]
    assert (note["ReferenceInvoiceId"], note["BilledCost"]) == ("INV-000001", "-0.000001255")
    assert all(EXACT.match(row["BilledCost"]) for row in found)
    assert (own[0]["InvoiceIssueStatus"], own[0]["PaymentTerms"]) == ("Issued", "Net 14")


def test_cost_and_usage_is_valid_and_leads_to_invoice_detail(invoice, market):
    """Every InvoiceDetailId has the same cost in both data sets; no scientific notation anywhere."""
    found, details = rows(cost_and_usage(market.ledger, invoice)), rows(invoice_detail(invoice))
    assert lint("Cost and Usage", found) == []
    assert disagreements(invoice_detail(invoice).encode(), cost_and_usage(market.ledger, invoice).encode()) == []
    assert total(found) == total(details)
    for detail in details:
        part = [row for row in found if row["InvoiceDetailId"] == detail["InvoiceDetailId"]]
        assert total(part) == total([detail])
        assert {row["InvoiceId"] for row in part} == {detail["InvoiceId"]}
    for row in found:
        assert all(EXACT.match(row[name]) for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"))
        assert not re.search(r"[0-9][eE][-+]?[0-9]", row["ListUnitPrice"])


def test_a_draft_can_be_exported(market, settler):
    """Before the month is over the status is Open and the invoice has no number."""
    market.serve(1)
    settler.drain()
    draft = build_invoice(market.ledger, "acme", rfc3339(now_us())[:7])
    found = rows(invoice_detail(draft))
    assert lint("Invoice Detail", found) == lint("Cost and Usage", rows(cost_and_usage(market.ledger, draft))) == []
    assert found[0]["InvoiceId"].startswith("DRAFT-")
    assert found[0]["InvoiceIssueStatus"] == "Open"
    assert disagreements(invoice_detail(draft).encode(), cost_and_usage(market.ledger, draft).encode()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("-0.000002161", "-0.000002162", 1), "Credit: Invoice Detail has -0.000002161"),
        (lambda text: text.replace(",Tax,", ",Usage,"), "Tax: only in Invoice Detail"),
        (lambda text: text.replace("USD", "EUR"), "EUR"),
        (lambda text: text.replace("CN-000002,", "CN-000003,"), "CN-000003"),
        (lambda text: "\r\n".join(text.split("\r\n")[:2]) + "\r\n", "only in Invoice Detail"),
        (lambda text: text + text.split("\r\n")[1] + "\r\n", "Usage: Invoice Detail has"),
        (lambda text: text.replace("INV-000001-0001", "INV-000001-0002"), "only in Invoice Detail"),
    ],
    ids=["cost", "category", "currency", "invoice", "missing", "twice", "row"],
)
def test_exports_that_differ_are_found(invoice, market, change, named):
    """A changed cost, category, currency or invoice, a row too few or too many, a row of another line."""
    usage = cost_and_usage(market.ledger, invoice)
    changed = change(usage)
    assert changed != usage
    found = disagreements(invoice_detail(invoice).encode(), changed.encode())
    assert any(named in line for line in found), found


@pytest.mark.parametrize(
    "data",
    [b"", b"InvoiceId\r\n", b"\xff", pytest.param(None, id="float")],
)
def test_what_is_no_export_is_refused(invoice, market, data):
    """No columns, other columns, no text, a cost in floating point."""
    usage = cost_and_usage(market.ledger, invoice).encode()
    with pytest.raises(ExportInvalid):
        disagreements(usage.replace(b"-0.000001255", b"-1.255e-06") if data is None else data, usage)
