"""Invoices as FOCUS 1.4 data sets: Invoice Detail, and Cost and Usage (docs/formats/focus.md, focus.finops.org)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from metering.canonical import canonical_bytes
from metering.event import parse_rfc3339, rfc3339
from metering.invoice import KIND_LABELS
from metering.ledger import Ledger
from metering.money import format_nanos
from metering.period import parse_period

Row = dict[str, str]
SERVICE = {"ServiceCategory": "AI and Machine Learning", "ServiceSubcategory": "Generative AI"}
STATUSES = {"draft": "Open", "open": "Issued", "paid": "Issued", "void": "Voided"}
DAY_US = 86_400_000_000


def invoice_detail(invoice: dict[str, Any]) -> str:
    """CSV of a row for each line, adjustment and tax of an invoice, and for each credit note on it.

    `invoice` is what metering.invoice.build_invoice gives. Costs are exact decimals; without the rows of credit notes
    they add up to the invoice's total.
    """
    return _csv([{**_detail_common(invoice), **row} for row in _detail_rows(invoice)])


def cost_and_usage(ledger: Ledger, invoice: dict[str, Any]) -> str:
    """CSV of a row for each day, model, token kind and price, and the rows of adjustments, tax and credit notes.

    Its InvoiceDetailId leads to the row of `invoice_detail` that it is part of: both add up to the same.
    """
    rows = [{**_usage_common(invoice), **row} for row in _usage_rows(ledger, invoice)]
    for row in _detail_rows(invoice):
        if row["ChargeCategory"] != "Usage":
            rows.append({**_usage_common(invoice), **_charge(row)})
    return _csv(rows)


def _detail_common(invoice: dict[str, Any]) -> Row:
    issued, due = invoice["issued"], invoice["due"]
    days = (parse_rfc3339(due) - parse_rfc3339(issued)) // DAY_US if issued else None
    created = issued or rfc3339(parse_period(invoice["period"]).start_us)
    changed = invoice["history"][-1]["time"] if invoice.get("history") else created
    return {
        "InvoiceId": _invoice_id(invoice),
        "ReferenceInvoiceId": _invoice_id(invoice),
        **_billing(invoice),
        "InvoiceDetailCreated": _time(created),
        "InvoiceDetailLastUpdated": _time(max(changed, created)),
        "InvoiceIssueDate": _time(issued) if issued else "",
        "InvoiceIssueStatus": STATUSES[invoice["status"]],
        "PaymentTerms": "Not issued" if days is None else f"Net {days}",
        "PaymentDueDate": _time(due) if due else "",
    }


def _detail_rows(invoice: dict[str, Any]) -> Iterator[Row]:
    number = _invoice_id(invoice)
    ids = iter(range(1, 10**9))
    for line in invoice["lines"]:
        grain = {"x_Model": line["model"], "x_TokenKind": line["kind"], "x_SkuPriceId": _sku_price(line)}
        yield {
            **_detail(f"{number}-{next(ids):04d}", "Usage", line["amount_nanos"], _describe(line)),
            "InvoiceDetailGrain": _pairs(grain),
        }
    for one in invoice["adjustments"]:
        text = f"{one['credit_note']}: {one['reason']}"
        yield _detail(f"{number}-{next(ids):04d}", "Credit", -one["amount_nanos"], text)
    tax = invoice["tax"]
    if tax["amount_nanos"]:
        yield _detail(f"{number}-{next(ids):04d}", "Tax", tax["amount_nanos"], tax["label"])
    for note in invoice.get("credit_notes", ()):
        text = f"Credit note {note['number']} on {number}"
        row = _detail(f"{note['number']}-0001", "Credit", -note["total_nanos"], text)
        yield {**row, "InvoiceId": note["number"], "ReferenceInvoiceId": number}


def _detail(identifier: str, category: str, amount_nanos: int, description: str) -> Row:
    return {
        "InvoiceDetailId": identifier,
        "ChargeCategory": category,
        "BilledCost": format_nanos(amount_nanos),
        "InvoiceDetailDescription": description,
        "InvoiceDetailGrain": "",
    }


def _usage_common(invoice: dict[str, Any]) -> Row:
    issuer = invoice["issuer"]["name"]
    return {
        **_billing(invoice),
        "BillingAccountName": invoice["client"]["name"],
        "ChargeClass": "",
        "ChargePeriodStart": _time(invoice["from"]),
        "ChargePeriodEnd": _time(invoice["to"]),
        "InvoiceId": _invoice_id(invoice),
        "ServiceProviderName": issuer,
        "HostProviderName": issuer,
        "ServiceName": "OpenLedger Gateway",
        **SERVICE,
        **dict.fromkeys(USAGE_ONLY, ""),
    }


def _usage_rows(ledger: Ledger, invoice: dict[str, Any]) -> Iterator[Row]:
    span = parse_period(invoice["period"])
    names = ("day", "model", "adapter", "kind", "unit_nanos", "requests", "quantity", "amount_nanos")
    with ledger.store.read() as connection:
        found = connection.execute(
            f"SELECT {', '.join(names)} FROM usage_totals WHERE tenant = ? AND day >= ? AND day <= ?"
            " ORDER BY day, model, adapter, kind DESC, unit_nanos",
            (invoice["tenant"], span.first.isoformat(), span.last.isoformat()),
        )
    details = {_key(line): f"{_invoice_id(invoice)}-{n:04d}" for n, line in enumerate(invoice["lines"], start=1)}
    for values in found:
        line = dict(zip(names, values, strict=True))
        line["adapter"] = line["adapter"] or None
        if _key(line) in details:  # not so on a draft that has just got a new line
            yield {**_usage(line), "InvoiceDetailId": details[_key(line)]}


def _usage(line: dict[str, Any]) -> Row:
    """What a day's use of one token kind at one price is."""
    day = parse_period(line["day"])
    cost, price, quantity = format_nanos(line["amount_nanos"]), format_nanos(line["unit_nanos"]), str(line["quantity"])
    return {
        "BilledCost": cost,
        "EffectiveCost": cost,
        "ListCost": cost,
        "ContractedCost": cost,
        "ChargeCategory": "Usage",
        "ChargeDescription": _describe(line),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _time(rfc3339(day.start_us)),
        "ChargePeriodEnd": _time(rfc3339(day.end_us)),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": "Tokens",
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": "Tokens",
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        "ResourceId": line["adapter"] or line["model"],
        "ResourceName": line["model"],
        "ResourceType": "LoRA adapter" if line["adapter"] else "Base model",
        "SkuId": _sku(line),
        "SkuMeter": KIND_LABELS[line["kind"]],
        "SkuPriceId": _sku_price(line),
        "x_Requests": str(line["requests"]),
    }


USAGE_ONLY = (
    "ConsumedQuantity", "ConsumedUnit", "PricingCategory", "PricingQuantity", "PricingUnit", "ListUnitPrice",
    "ContractedUnitPrice", "ResourceId", "ResourceName", "ResourceType", "SkuId", "SkuMeter", "SkuPriceId",
    "x_Requests",
)  # fmt: skip


def _charge(detail: Row) -> Row:
    """Tax, credit or credit note as a row of Cost and Usage."""
    cost = detail["BilledCost"]
    row = {
        "BilledCost": cost,
        "EffectiveCost": cost,
        "ListCost": cost,
        "ContractedCost": cost,
        "ChargeCategory": detail["ChargeCategory"],
        "ChargeDescription": detail["InvoiceDetailDescription"],
        "ChargeFrequency": "One-Time",
        "InvoiceDetailId": detail["InvoiceDetailId"],
    }
    if "InvoiceId" in detail:  # a credit note corrects an issued invoice
        row |= {"InvoiceId": detail["InvoiceId"], "ChargeClass": "Correction"}
    return row


def _billing(invoice: dict[str, Any]) -> Row:
    return {
        "InvoiceIssuerName": invoice["issuer"]["name"],
        "BillingAccountId": invoice["tenant"],
        "BillingCurrency": invoice["currency"],
        "BillingPeriodStart": _time(invoice["from"]),
        "BillingPeriodEnd": _time(invoice["to"]),
    }


def _invoice_id(invoice: dict[str, Any]) -> str:
    return invoice["number"] or f"DRAFT-{invoice['period']}"


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["model"], line["adapter"], line["kind"], line["unit_nanos"]


def _sku(line: dict[str, Any]) -> str:
    return f"{line['model']} {line['kind']}"


def _sku_price(line: dict[str, Any]) -> str:
    return f"{_sku(line)} @{line['unit_nanos']}n"


def _describe(line: dict[str, Any]) -> str:
    return f"{line['model']}: {KIND_LABELS[line['kind']]}"


def _pairs(value: dict[str, str]) -> str:
    return canonical_bytes(value).decode()


def _time(text: str) -> str:
    """FOCUS writes whole seconds: 2026-11-01T00:00:00Z."""
    return text[:19] + "Z"


def _csv(rows: list[Row]) -> str:
    """RFC 4180, one header, the columns of all rows in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
